# moed as one file, of Debian's static libraries (libunistring-dev beside the others). What is not in it:
# OpenBLAS, which MOED_KERNEL=openblas loads at run time; modules of PKCS #11 (no_pkcs11.c); and glibc's own
# modules for looking up names, so that --host and --trace-endpoint take addresses.
target_compile_definitions(moed_server PRIVATE MOED_STATIC)
set_target_properties(moed_core moed_proto moed_server PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_sources(moed PRIVATE deploy/static/no_pkcs11.c)
target_link_options(moed PRIVATE -static-pie)

# Debian names libuv's file otherwise than its pkg-config file does. At the end of the line, as each library needs
# others.
set_property(TARGET PkgConfig::UV PROPERTY INTERFACE_LINK_LIBRARIES)
string(APPEND CMAKE_C_STANDARD_LIBRARIES " -Wl,--start-group -lmicrohttpd -lgnutls -lnettle -lhogweed -lgmp -ltasn1"
    " -lidn2 -lunistring -lnghttp2 -luv_a -ljansson -lutf8proc -lz -lm -Wl,--end-group")
