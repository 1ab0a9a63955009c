/* Switches callgrind on and off from within the process it runs; nothing happens without valgrind. */
#include <valgrind/callgrind.h>

void counter_start(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void counter_stop(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
