#include <verrou/conformance.h>
static verrou_status open_redis(void *user, verrou_store **ret_store, verrou_error *err)
{
    return verrou_store_open(user, NULL, ret_store, err);
}
int main(int argc, char **argv)
{
    verrou_conformance plain = {sizeof plain, "redis", open_redis, argv[1], 0};
    (void)argc;
    return verrou_conformance_run(&plain) ? 1 : 0;
}
