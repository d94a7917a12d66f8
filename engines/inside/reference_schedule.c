/* A binary heap of due times, each of which knows its place in it. */
#include "reference.h"

#include <stdlib.h>

static void set(Schedule *schedule, size_t place, Due *due) {
    schedule->heap[place] = due;
    due->place = place;
}

static void rise(Schedule *schedule, size_t place) {
    Due *due = schedule->heap[place];
    for (; place > 1 && schedule->heap[place / 2]->due_ns > due->due_ns; place /= 2)
        set(schedule, place, schedule->heap[place / 2]);
    set(schedule, place, due);
}

static void sink(Schedule *schedule, size_t place) {
    Due **heap = schedule->heap, *due = heap[place];
    for (size_t child; (child = place * 2) <= schedule->count; place = child) {
        if (child < schedule->count && heap[child + 1]->due_ns < heap[child]->due_ns)
            child++;
        if (heap[child]->due_ns >= due->due_ns)
            break;
        set(schedule, place, heap[child]);
    }
    set(schedule, place, due);
}

/* Adds it, or moves it to another time. */
void schedule_put(Schedule *schedule, Due *due, int64_t due_ns) {
    if (!due->place) {
        if (schedule->count + 2 > schedule->capacity) {
            schedule->capacity = schedule->capacity * 2 + 64;
            schedule->heap = realloc(schedule->heap, schedule->capacity * sizeof *schedule->heap);
            if (!schedule->heap)
                die("no memory for %zu streams", schedule->capacity);
        }
        set(schedule, ++schedule->count, due);
    }
    due->due_ns = due_ns;
    rise(schedule, due->place);
    sink(schedule, due->place);
}

void schedule_remove(Schedule *schedule, Due *due) {
    size_t place = due->place;
    if (!place)
        return;
    due->place = 0;
    Due *last = schedule->heap[schedule->count--];
    if (last == due)
        return;
    set(schedule, place, last);
    rise(schedule, last->place);
    sink(schedule, last->place);
}
