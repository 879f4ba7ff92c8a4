/*
 * accounts.h - a bank in a plain file: one line of fixed length an account, "NUMBER CENTS".
 */
#ifndef ACCOUNTS_H
#define ACCOUNTS_H

/* All return 0, or -1 with errno set. */
int accounts_create(const char *path, int count, long long cents_each);
int accounts_total(const char *path, int *ret_count, long long *ret_total);

/* Move money between two accounts. Nothing keeps others out meanwhile: that is the caller's business. */
int accounts_transfer(const char *path, int from, int to, long long cents);

#endif
