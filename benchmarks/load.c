/* A load generator: keeps CONNECTIONS requests in work at any time (closed loop) over HTTP/1.1 keep-alive.
 *
 * usage: load PORT [-P PATH] [-c CONNECTIONS] [-t SECONDS] [-w WARM_SECONDS] [-b BODY_FILE] [-H "Name: value"]...
 *
 * One thread, epoll, 127.0.0.1. After the warm-up it measures for SECONDS and prints one line of JSON: requests a
 * second, latency of whole answers and of their first byte (p50, p99, microseconds), and for streams the events a
 * second and how long an event took from the mock upstream's "T" and 19 digits (nanoseconds of CLOCK_MONOTONIC) to
 * here. `all` and `events_all` count the warm-up too, for CPU time a request of a process watched from outside.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, SIZED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE };
enum { OVERLAP = 32 }; /* longer than a time stamp: what of a piece may be the beginning of one */

typedef struct {
    uint32_t *values; /* hundreds of nanoseconds */
    size_t count, room;
} samples;

typedef struct {
    int fd, phase, status, closes, events;
    size_t head_size, left, line_size, tail_size;
    uint64_t begun, first_byte;
    char head[16384], line[32], tail[OVERLAP];
} connection;

static samples whole, first, transit;
static uint64_t done, failed, all, events, events_all, lost;
static int measuring, port, poller, first_bad_status;
static char *request;
static size_t request_size;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void add(samples *to, uint64_t nanoseconds) {
    if (!measuring)
        return;
    if (to->count == to->room) {
        to->room = to->room ? to->room * 2 : 65536;
        if (!(to->values = realloc(to->values, to->room * sizeof *to->values)))
            fail("out of memory");
    }
    uint64_t value = nanoseconds / 100;
    to->values[to->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int order(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* A percentile in microseconds, of sorted samples. */
static double percentile(const samples *of, double part) {
    return of->count ? of->values[(size_t)(part * (double)(of->count - 1) + 0.5)] / 10.0 : -1;
}

static void dial(connection *c) {
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        fail("cannot connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void ask(connection *c) {
    c->phase = HEAD;
    c->head_size = c->line_size = c->tail_size = 0;
    c->begun = now();
    for (size_t sent = 0; sent < request_size;) {
        ssize_t size = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (size < 0 && errno != EINTR)
            return; /* closed: the next read says so */
        if (size > 0)
            sent += (size_t)size;
    }
}

static void answered(connection *c) {
    uint64_t time = now();
    if (c->status >= 200 && c->status < 300) {
        all++;
        done += (uint64_t)measuring;
        add(&whole, time - c->begun);
        add(&first, c->first_byte - c->begun);
    } else {
        failed += (uint64_t)measuring;
        if (!first_bad_status)
            first_bad_status = c->status;
    }
    if (c->closes) {
        close(c->fd);
        dial(c);
    }
    ask(c);
}

/* Count events and read time stamps that begin in `data`; the last bytes are looked at with what follows them. */
static void scan(const char *data, size_t size, size_t until, uint64_t time) {
    const char *end = data + size, *at = data;
    while ((at = memmem(at, (size_t)(end - at), "data:", 5)) && (size_t)(at - data) < until) {
        events += (uint64_t)measuring;
        events_all++;
        at += 5;
    }
    at = data;
    while ((at = memmem(at, (size_t)(end - at), "\"T0", 3)) && (size_t)(at - data) < until) {
        if (end - at > 21)
            add(&transit, time - strtoull(at + 2, NULL, 10));
        at += 3;
    }
}

static void take_events(connection *c, const char *data, size_t size) {
    char joined[3 * OVERLAP + 1];
    uint64_t time = now();
    size_t taken = size < OVERLAP ? size : OVERLAP, both = c->tail_size + taken;
    memcpy(joined, c->tail, c->tail_size);
    memcpy(joined + c->tail_size, data, taken);
    joined[both] = 0;
    if (size < OVERLAP) { /* a small piece: what can no longer be the beginning of something is done with */
        size_t keep = both < OVERLAP ? both : OVERLAP;
        scan(joined, both, both - keep, time);
        memcpy(c->tail, joined + both - keep, keep);
        c->tail_size = keep;
        return;
    }
    scan(joined, both, c->tail_size, time);
    scan(data, size, size - OVERLAP, time);
    memcpy(c->tail, data + size - OVERLAP, OVERLAP);
    c->tail_size = OVERLAP;
}

static void end_events(connection *c) {
    char last[OVERLAP + 1];
    memcpy(last, c->tail, c->tail_size);
    last[c->tail_size] = 0;
    scan(last, c->tail_size, c->tail_size, now());
}

/* The head, if it is complete with these bytes: how many of them it takes. */
static size_t take_head(connection *c, const char *data, size_t size) {
    size_t before = c->head_size, room = sizeof c->head - 1 - before, taken = size < room ? size : room;
    if (!taken)
        fail("the head of an answer is too large");
    memcpy(c->head + before, data, taken);
    c->head_size += taken;
    c->head[c->head_size] = 0;
    char *end = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
    if (!end)
        return taken;
    *end = 0;
    c->first_byte = now();
    c->status = atoi(c->head + 9);
    c->closes = strcasestr(c->head, "\nconnection: close") != NULL;
    c->events = strcasestr(c->head, "event-stream") != NULL;
    const char *length = strcasestr(c->head, "\ncontent-length:");
    if (length) {
        c->left = strtoull(length + 16, NULL, 10);
        c->phase = SIZED;
    } else if (strcasestr(c->head, "\ntransfer-encoding: chunked"))
        c->phase = CHUNK_SIZE;
    else {
        c->phase = UNTIL_CLOSE;
        c->closes = 1;
    }
    return (size_t)(end - c->head) + 4 - before;
}

/* One byte of a chunk's framing. */
static int take_framing(connection *c, char byte) {
    if (byte != '\n') {
        if (byte != '\r' && c->line_size < sizeof c->line - 1)
            c->line[c->line_size++] = byte;
        return 0;
    }
    c->line[c->line_size] = 0;
    int empty = c->line_size == 0;
    c->line_size = 0;
    if (c->phase == TRAILER)
        return empty;
    if (c->phase == CHUNK_END)
        c->phase = CHUNK_SIZE;
    else {
        c->left = strtoull(c->line, NULL, 16);
        c->phase = c->left ? CHUNK_DATA : TRAILER;
    }
    return 0;
}

static void take(connection *c, const char *data, size_t size) {
    while (size) {
        size_t used = 1;
        int complete = 0;
        if (c->phase == HEAD) {
            used = take_head(c, data, size);
            complete = c->phase == SIZED && !c->left;
        } else if (c->phase == SIZED || c->phase == CHUNK_DATA || c->phase == UNTIL_CLOSE) {
            used = c->phase == UNTIL_CLOSE || size < c->left ? size : c->left;
            if (c->events)
                take_events(c, data, used);
            if (c->phase != UNTIL_CLOSE && !(c->left -= used)) {
                complete = c->phase == SIZED;
                c->phase = CHUNK_END;
            }
        } else
            complete = take_framing(c, *data);
        data += used;
        size -= used;
        if (complete) {
            if (c->events)
                end_events(c);
            answered(c);
            return; /* there is never a second answer behind: one request at a time */
        }
    }
}

static void closed(connection *c) {
    if (c->phase == UNTIL_CLOSE) {
        answered(c);
        return;
    }
    lost++;
    failed += (uint64_t)measuring;
    close(c->fd);
    dial(c);
    ask(c);
}

static void prepare(const char *path, const char *headers, const char *file) {
    static char body[1 << 20] = "{\"model\":\"mock-model\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}";
    size_t size = strlen(body);
    if (file) {
        FILE *stream = fopen(file, "r");
        if (!stream)
            fail("cannot open the body");
        size = fread(body, 1, sizeof body, stream);
        fclose(stream);
    }
    request = malloc(size + strlen(headers) + strlen(path) + 512);
    if (!request)
        fail("out of memory");
    request_size = (size_t)sprintf(request,
                                   "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                                   "Accept: */*\r\nUser-Agent: load\r\n%sContent-Length: %zu\r\n\r\n",
                                   path, port, headers, size);
    memcpy(request + request_size, body, size);
    request_size += size;
}

static void report(double seconds) {
    samples *of[] = {&whole, &first, &transit};
    for (int i = 0; i < 3; i++)
        qsort(of[i]->values, of[i]->count, sizeof *of[i]->values, order);
    printf("{\"rps\":%.1f,\"done\":%lu,\"failed\":%lu,\"lost\":%lu,\"first_bad_status\":%d,\"all\":%lu,", (double)done / seconds,
           done, failed, lost, first_bad_status, all);
    printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"first_p50_us\":%.1f,\"first_p99_us\":%.1f,", percentile(&whole, .5),
           percentile(&whole, .99), percentile(&first, .5), percentile(&first, .99));
    printf("\"events_per_second\":%.1f,\"events_all\":%lu,\"transit_p50_us\":%.1f,\"transit_p99_us\":%.1f}\n",
           (double)events / seconds, events_all, percentile(&transit, .5), percentile(&transit, .99));
}

int main(int count, char **arguments) {
    int option, connections = 16;
    double seconds = 3, warm = 0.5;
    const char *path = "/v1/chat/completions", *file = NULL;
    char headers[4096] = "";
    while ((option = getopt(count, arguments, "P:c:t:w:b:H:")) > 0) {
        switch (option) {
        case 'P': path = optarg; break;
        case 'c': connections = atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'b': file = optarg; break;
        case 'H':
            if (strlen(headers) + strlen(optarg) + 3 > sizeof headers)
                fail("the headers are too long");
            strcat(strcat(headers, optarg), "\r\n");
            break;
        default: return 2;
        }
    }
    if (optind >= count || connections < 1)
        fail("usage: load PORT [-P PATH] [-c CONNECTIONS] [-t SECONDS] [-w WARM_SECONDS] [-b BODY_FILE] [-H HEADER]...");
    port = atoi(arguments[optind]);
    signal(SIGPIPE, SIG_IGN);
    prepare(path, headers, file);
    poller = epoll_create1(EPOLL_CLOEXEC);
    connection *all_connections = calloc((size_t)connections, sizeof *all_connections);
    char *buffer = malloc(1 << 18);
    if (!all_connections || !buffer)
        fail("out of memory");
    for (int i = 0; i < connections; i++) {
        dial(&all_connections[i]);
        ask(&all_connections[i]);
    }
    uint64_t start = now() + (uint64_t)(warm * 1e9), end = start + (uint64_t)(seconds * 1e9), time;
    while ((time = now()) < end) {
        struct epoll_event ready[256];
        measuring = time >= start;
        int found = epoll_wait(poller, ready, 256, 100);
        for (int i = 0; i < found; i++) {
            connection *c = ready[i].data.ptr;
            ssize_t size = recv(c->fd, buffer, 1 << 18, MSG_DONTWAIT);
            if (size > 0)
                take(c, buffer, (size_t)size);
            else if (size == 0 || (errno != EAGAIN && errno != EINTR))
                closed(c);
        }
    }
    report((double)(time - start) / 1e9);
    return 0;
}
