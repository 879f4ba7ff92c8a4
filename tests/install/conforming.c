/* conforming.c - the conformance suite as a store author meets it: installed, and pointed at a store by its address. */
#include <verrou/conformance.h>

static verrou_status open_store(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_open(user, NULL, ret_store, err);
}

int main(int argc, char **argv)
{
    verrou_conformance suite = {sizeof suite, "installed", open_store, argv[argc - 1], 0};

    return verrou_conformance_run(&suite) == 0 ? 0 : 1;
}
