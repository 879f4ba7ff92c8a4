# The CMakeLists.txt of somebody else's project, which uses an installed Verrou in each way that there is.
cmake_minimum_required(VERSION 3.18)
project(guest LANGUAGES C CXX)

find_package(verrou 0.1 REQUIRED COMPONENTS static sqlite)

add_executable(shared_c ${EXAMPLES}/first_lock.c)
target_link_libraries(shared_c PRIVATE verrou::verrou)

add_executable(shared_cxx ${SOURCES}/every_header.cc)
target_link_libraries(shared_cxx PRIVATE verrou::verrou)

add_executable(static_c ${EXAMPLES}/first_lock.c)
target_link_libraries(static_c PRIVATE verrou::verrou-static)

add_executable(linked_store ${SOURCES}/linked_store.c)
target_link_libraries(linked_store PRIVATE verrou::verrou-sqlite-static verrou::verrou-static)

if(TARGET verrou::verrou-redis-static)
    add_executable(linked_redis ${SOURCES}/linked_store.c)
    target_compile_definitions(linked_redis PRIVATE REDIS)
    target_link_libraries(linked_redis PRIVATE verrou::verrou-redis-static verrou::verrou-static)
endif()

add_executable(conforming ${SOURCES}/conforming.c)
target_link_libraries(conforming PRIVATE verrou::verrou-conformance)
