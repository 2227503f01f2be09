# SPDX-License-Identifier: Apache-2.0
# Writes the bill of materials of a wheel beside its metadata (PEP 770), from the libraries as they
# were installed into FOLDER, stripped if they were: cmake -D FOLDER=... -D OUTPUT=...
# -D PROJECT_VERSION=... -D PROJECT_DESCRIPTION=... -P sbom.cmake
# It has no time and no serial number: the same libraries give the same bytes.
set(files)
file(GLOB libraries ${FOLDER}/*.so ${FOLDER}/*.so.*) # sorted
foreach(library IN LISTS libraries)
    file(SHA256 ${library} sha256)
    get_filename_component(name ${library} NAME)
    string(CONFIGURE [[
        {
          "type": "file",
          "bom-ref": "@name@",
          "name": "pageattn/@name@",
          "version": "@PROJECT_VERSION@",
          "licenses": [{ "license": { "id": "Apache-2.0" } }],
          "hashes": [{ "alg": "SHA-256", "content": "@sha256@" }]
        }]] file @ONLY)
    list(APPEND files "${file}")
endforeach()
list(JOIN files "," files)
configure_file(${CMAKE_CURRENT_LIST_DIR}/sbom.cdx.json.in ${OUTPUT} @ONLY)
