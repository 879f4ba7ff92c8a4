# What `cmake --install` puts where: headers, shared and static libraries, pkg-config modules, a CMake package, the command, manual pages.
# Everything finds its neighbours by relative paths, so that an installed tree may be moved.
include(CMakePackageConfigHelpers)

set(package_dir ${PROJECT_SOURCE_DIR}/cmake/package)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/verrou)
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# verrou_install_library(NAME EXPORT TARGETS...): library targets, known to other projects as verrou::NAME[-static].
function(verrou_install_library name export)
    foreach(target ${ARGN})
        get_target_property(type ${target} TYPE)
        set(suffix "")
        if(type STREQUAL STATIC_LIBRARY)
            set(suffix "-static")
            # Our own warnings and sanitizers are not for those who link with the library.
            get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
            list(REMOVE_ITEM libraries $<LINK_ONLY:verrou_flags>)
            set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${libraries}")
        else()
            set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN")
            if(UNIX AND NOT APPLE)
                target_link_options(${target} PRIVATE LINKER:--version-script=${package_dir}/exports.map)
                set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${package_dir}/exports.map)
            endif()
        endif()
        set_target_properties(${target} PROPERTIES EXPORT_NAME ${name}${suffix})
        target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
        install(TARGETS ${target} EXPORT ${export} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
            ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
    endforeach()
endfunction()

function(verrou_install_targets export)
    install(EXPORT ${export} FILE ${export}.cmake NAMESPACE verrou:: DESTINATION ${cmake_dir})
endfunction()

# verrou_install_pkgconfig(NAME DESCRIPTION REQUIRES REQUIRES-PRIVATE LIBS-PRIVATE)
function(verrou_install_pkgconfig name description requires requires_private libs_private)
    file(RELATIVE_PATH up /${pkgconfig_dir} /)
    string(REGEX REPLACE "/$" "" up "${up}")
    set(prefix "\${pcfiledir}/${up}")
    configure_file(${package_dir}/module.pc.in ${PROJECT_BINARY_DIR}/package/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/package/${name}.pc DESTINATION ${pkgconfig_dir})
endfunction()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/verrou DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")

verrou_install_library(verrou verrou-targets verrou_shared)
verrou_install_library(verrou verrou-static-targets verrou_static)
verrou_install_targets(verrou-static-targets)
verrou_install_pkgconfig(verrou "Named locks with leases and fencing tokens over interchangeable stores" "" "jansson, inih"
    "-pthread -ldl")

get_property(stores GLOBAL PROPERTY VERROU_STORES)
set(find_static "")
foreach(store ${stores})
    string(TOUPPER ${store} upper)
    get_property(modules GLOBAL PROPERTY VERROU_STORE_REQUIRES_${store})
    verrou_install_library(verrou-${store} verrou-targets verrou_${store}_shared)
    verrou_install_library(verrou-${store} verrou-${store}-static-targets verrou_${store}_static)
    verrou_install_targets(verrou-${store}-static-targets)
    string(REPLACE ";" ", " required "${modules}")
    verrou_install_pkgconfig(verrou-${store} "The ${store} store of Verrou" verrou "${required}" "-pthread")
    string(REPLACE ";" "," required "${modules}")
    string(APPEND find_static "verrou_find_static(${store}-static ${upper}=${required})\n")
endforeach()

if(TARGET verrou_conformance_shared)
    verrou_install_library(verrou-conformance verrou-targets verrou_conformance_shared)
    verrou_install_library(verrou-conformance verrou-conformance-static-targets verrou_conformance_static)
    verrou_install_targets(verrou-conformance-static-targets)
    verrou_install_pkgconfig(verrou-conformance "The test suite for stores of Verrou" verrou cmocka "-pthread")
    string(APPEND find_static "verrou_find_static(conformance-static CMOCKA=cmocka)\n")
endif()
verrou_install_targets(verrou-targets)

configure_package_config_file(${package_dir}/verrou-config.cmake.in ${PROJECT_BINARY_DIR}/package/verrou-config.cmake
    INSTALL_DESTINATION ${cmake_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/verrou-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/verrou-config.cmake ${PROJECT_BINARY_DIR}/package/verrou-config-version.cmake
    DESTINATION ${cmake_dir})

# The command installs itself, its page and its completion (src/cli).
file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.[1-8])
list(REMOVE_ITEM pages ${PROJECT_SOURCE_DIR}/docs/man/verrou.1)
foreach(page ${pages})
    string(REGEX REPLACE ".*\\." "" section ${page})
    install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/CHANGELOG.md ${PROJECT_SOURCE_DIR}/LICENSE
    ${PROJECT_SOURCE_DIR}/CONTRIBUTING.md
    DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/guide ${PROJECT_SOURCE_DIR}/docs/internals DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/examples DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING
    PATTERN "*.[ch]" PATTERN "*.sh" PATTERN "*.ts" PATTERN "*.json" PATTERN ".env.example")

# The statements that make the lock table, for those who keep their databases' schemas themselves.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/schema DESTINATION ${CMAKE_INSTALL_DATADIR}/verrou FILES_MATCHING PATTERN "*.sql")
