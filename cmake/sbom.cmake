# SPDX-License-Identifier: Apache-2.0
# Writes the bill of materials of a wheel beside its metadata (PEP 770), from the library as it was
# installed, stripped if it was: cmake -D LIBRARY=... -D OUTPUT=... -D PROJECT_VERSION=...
# -D PROJECT_DESCRIPTION=... -P sbom.cmake
# It has no time and no serial number: the same library gives the same bytes.
file(SHA256 ${LIBRARY} sha256)
configure_file(${CMAKE_CURRENT_LIST_DIR}/sbom.cdx.json.in ${OUTPUT} @ONLY)
