# SPDX-License-Identifier: Apache-2.0
# Writes commit.h: cmake -D SOURCE_DIR=... -D OUTPUT=... -P commit.cmake
# Run at each build; the file changes only when the commit does, so nothing is compiled in vain.
find_package(Git QUIET)
set(commit "")
if(GIT_FOUND)
    execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --short=12 HEAD
        WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE commit ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE)
    # Without the optional locks this never stands in the way of another git command.
    execute_process(COMMAND ${GIT_EXECUTABLE} --no-optional-locks status --porcelain
        --untracked-files=no -- CMakeLists.txt include src cli
        WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE changes ERROR_QUIET)
endif()
if(NOT commit)
    set(commit "unknown")
elseif(changes)
    string(APPEND commit "-dirty")
endif()
set(text "#define CLI_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS ${OUTPUT})
    file(READ ${OUTPUT} old)
endif()
if(NOT text STREQUAL old)
    file(WRITE ${OUTPUT} "${text}")
endif()
