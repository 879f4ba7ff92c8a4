/* fuzz_main.c - runs a fuzz target over files and over the files of folders, where there is no libFuzzer to do it. */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static int run_path(const char *path);

static int run_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *item;
    int count = 0;

    if (folder == NULL)
        return 0;
    while ((item = readdir(folder)) != NULL) {
        char child[4096];

        if (item->d_name[0] == '.')
            continue;
        snprintf(child, sizeof(child), "%s/%s", path, item->d_name);
        count += run_path(child);
    }
    closedir(folder);
    return count;
}

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);
    size_t size;

    if (file == NULL || data == NULL) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    size = fread(data, 1, 1 << 20, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static int run_path(const char *path)
{
    struct stat what;

    if (stat(path, &what) == 0 && S_ISDIR(what.st_mode))
        return run_folder(path);
    return run_file(path);
}

/* A run without a single input is a failure: the corpus was not found. */
int main(int argc, char **argv)
{
    int count = 0;

    for (int i = 1; i < argc; i++)
        count += run_path(argv[i]);
    printf("%d inputs\n", count);
    return count > 0 ? 0 : 1;
}
