# Files installed besides the program, and the Debian package. The server also builds without them,
# as in the container image.

set(CONF ${CMAKE_SOURCE_DIR}/deploy/moed.conf)

# The manual page and the completion are generated from the sample file, which has every option.
function(make_of_conf output script)
    add_custom_command(OUTPUT ${output}
        COMMAND awk -f ${script} ${CONF} > ${output}
        DEPENDS ${script} ${CONF} VERBATIM)
endfunction()

make_of_conf(${CMAKE_BINARY_DIR}/moed.conf.5 ${CMAKE_SOURCE_DIR}/deploy/man/moed.conf.5.awk)
make_of_conf(${CMAKE_BINARY_DIR}/moed.bash ${CMAKE_SOURCE_DIR}/deploy/completion/moed.awk)
add_custom_target(installed_files ALL
    DEPENDS ${CMAKE_BINARY_DIR}/moed.conf.5 ${CMAKE_BINARY_DIR}/moed.bash)

install(FILES deploy/man/moed.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${CMAKE_BINARY_DIR}/moed.conf.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5)
install(FILES ${CMAKE_BINARY_DIR}/moed.bash RENAME moed
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

# The package: cpack -G DEB in the build directory.
file(READ deploy/systemd/moed.service UNIT)
string(REPLACE "/usr/local/bin/" "/usr/bin/" UNIT "${UNIT}")
string(REPLACE "/etc/moed.conf" "/etc/moed/moed.conf" UNIT "${UNIT}")
file(CONFIGURE OUTPUT debian/moed.service CONTENT "${UNIT}" @ONLY)
file(READ ${CONF} PACKAGED_CONF)
string(REPLACE "#models = /srv/moed/models" "models = /usr/share/moed/models" PACKAGED_CONF "${PACKAGED_CONF}")
file(CONFIGURE OUTPUT debian/moed.conf CONTENT "${PACKAGED_CONF}" @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/debian/moed.service DESTINATION /lib/systemd/system
    COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES ${CMAKE_BINARY_DIR}/debian/moed.conf DESTINATION /etc/moed
    COMPONENT debian EXCLUDE_FROM_ALL)
# Nobody but the package manager writes these; the operator's lie where `models` says.
install(DIRECTORY deploy/models/ DESTINATION /usr/share/moed/models COMPONENT debian EXCLUDE_FROM_ALL)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The moed authors <moed@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "inference server for Mixture-of-Experts models")
set(CPACK_PACKAGE_DESCRIPTION "moed serves trained Mixture-of-Experts models over HTTP and reports which
expert served what: per-expert routing statistics as JSON and Prometheus metrics.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_COMPONENTS_ALL Unspecified debian)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION httpd)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS libopenblas0-pthread)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
    "${CMAKE_SOURCE_DIR}/deploy/debian/postinst;${CMAKE_SOURCE_DIR}/deploy/debian/prerm;${CMAKE_SOURCE_DIR}/deploy/debian/postrm;${CMAKE_SOURCE_DIR}/deploy/debian/conffiles")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
