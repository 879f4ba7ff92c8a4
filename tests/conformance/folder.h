/*
 * folder.h - a folder that exists while a test runs.
 */
#ifndef FOLDER_H
#define FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FOLDER_PATH = 128 };

/* Make it where temporary files belong, and write its path. */
static inline void folder_make(char path[FOLDER_PATH])
{
    const char *place = getenv("TMPDIR");

    snprintf(path, FOLDER_PATH, "%s/verrou-XXXXXX", place && place[0] ? place : P_tmpdir);
    if (!mkdtemp(path)) {
        perror(path);
        exit(1);
    }
}

/* Remove the folder and the files in it. */
static inline void folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;

    while (folder && (entry = readdir(folder)))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
    rmdir(path);
}

#endif
