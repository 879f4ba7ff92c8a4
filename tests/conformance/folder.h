/*
 * folder.h - a folder that exists while a test runs.
 */
#ifndef FOLDER_H
#define FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Make it; `path` is the pattern for mkdtemp(3). */
static inline char *folder_make(char *path)
{
    if (!mkdtemp(path)) {
        perror(path);
        exit(1);
    }
    return path;
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
