/* A fast mock of an OpenAI-compatible upstream, so that a proxy in front of it is what a benchmark measures.
 *
 * usage: mock_upstream PORT [-n EVENTS] [-d DELAY_US] [-i INTERVAL_US] [-s]
 *
 * One thread, epoll, HTTP/1.1 with keep-alive on 127.0.0.1. It answers
 *   GET anything                 a list of one model
 *   POST, "stream":true          EVENTS content events and one with the finish reason, a usage event when the request
 *                                asks for include_usage, and [DONE]
 *   POST                         about 1 KB of JSON, after DELAY_US
 * A number in the field "seed" of a request replaces DELAY_US or INTERVAL_US for this request.
 * With an interval of 0 a stream leaves in one write, or with -s in one write for each event. The text of an event
 * carries the time it was sent ("T" and 19 digits, nanoseconds of CLOCK_MONOTONIC): the load generator reads it back.
 *
 * It trusts its clients (it is a measuring instrument on loopback): no limits, Content-Length or chunked bodies only.
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IDLE, DELAYED, STREAMING };

typedef struct connection {
    int fd, state, closing, broken, usage;
    int left;              /* events still to send */
    uint64_t due, pace;    /* nanoseconds */
    char *in, *out;
    size_t in_size, in_room, out_size, out_sent, place; /* place: in `waiting`, plus 1 */
} connection;

static int poller, events = 100, one_write_each;
static uint64_t delay_ns, interval_ns;
static char answer[4096], models[512], *whole;
static size_t answer_size, models_size;
static connection **waiting; /* those with something due; few enough to look at all of them */
static size_t waiting_count, waiting_room;

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char CHUNK[] = "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1763842000,"
                            "\"model\":\"mock-model\",\"system_fingerprint\":\"fp_mock\",";

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *grown(void *memory, size_t size) {
    void *result = realloc(memory, size);
    if (!result) {
        perror("memory");
        exit(1);
    }
    return result;
}

static size_t chunk(char *to, const char *data, size_t size) {
    size_t used = (size_t)sprintf(to, "%zx\r\n", size);
    memcpy(to + used, data, size);
    memcpy(to + used + size, "\r\n", 2);
    return used + size + 2;
}

static size_t content_event(char *to, int first) {
    char event[640];
    int size = sprintf(event,
                       "data: %s\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"T%019llu \"},\"logprobs\":null,"
                       "\"finish_reason\":null}]}\n\n",
                       CHUNK, first ? "\"role\":\"assistant\"," : "", (unsigned long long)now());
    return chunk(to, event, (size_t)size);
}

static size_t last_events(char *to, int usage) {
    char event[640];
    int size = sprintf(event,
                       "data: %s\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,"
                       "\"finish_reason\":\"stop\"}]}\n\n",
                       CHUNK);
    size_t used = chunk(to, event, (size_t)size);
    if (usage) {
        size = sprintf(event,
                       "data: %s\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":%d,"
                       "\"total_tokens\":%d}}\n\n",
                       CHUNK, events, events + 25);
        used += chunk(to + used, event, (size_t)size);
    }
    used += chunk(to + used, "data: [DONE]\n\n", 14);
    return used + (size_t)sprintf(to + used, "0\r\n\r\n");
}

static void listen_for(connection *c, uint32_t what) {
    struct epoll_event event = {.events = what, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void put(connection *c, const char *data, size_t size) {
    while (size && !c->out_size && !c->broken) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0 && errno != EINTR)
            c->broken = 1;
        data += sent < 0 ? 0 : sent;
        size -= sent < 0 ? 0 : (size_t)sent;
    }
    if (!size || c->broken)
        return;
    if (!c->out_size)
        listen_for(c, EPOLLIN | EPOLLOUT);
    c->out = grown(c->out, c->out_size + size);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void put_unsent(connection *c) {
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                c->broken = 1;
            return;
        }
        c->out_sent += (size_t)sent;
    }
    c->out_size = c->out_sent = 0;
    listen_for(c, EPOLLIN);
    if (c->closing && c->state == IDLE)
        c->broken = 1;
}

static void wait_until(connection *c, int state, uint64_t due) {
    c->state = state;
    c->due = due;
    if (c->place)
        return;
    if (waiting_count == waiting_room)
        waiting = grown(waiting, (waiting_room = waiting_room ? waiting_room * 2 : 64) * sizeof *waiting);
    waiting[waiting_count] = c;
    c->place = ++waiting_count;
}

static void wait_no_more(connection *c) {
    if (!c->place)
        return;
    connection *last = waiting[--waiting_count];
    waiting[c->place - 1] = last;
    last->place = c->place;
    c->place = 0;
}

static void answered(connection *c) {
    c->state = IDLE;
    wait_no_more(c);
    if (c->closing && !c->out_size)
        c->broken = 1;
}

static void stream_at_once(connection *c) {
    size_t used = sizeof STREAM_HEAD - 1;
    memcpy(whole, STREAM_HEAD, used);
    for (int i = 0; i < events; i++) {
        used += content_event(whole + used, i == 0);
        if (one_write_each) {
            put(c, whole, used);
            used = 0;
        }
    }
    used += last_events(whole + used, c->usage);
    put(c, whole, used);
    answered(c);
}

static void next_event(connection *c) {
    char event[2048];
    size_t used = 0;
    if (c->left == events) {
        memcpy(event, STREAM_HEAD, sizeof STREAM_HEAD - 1);
        used = sizeof STREAM_HEAD - 1;
    }
    if (c->left > 0) {
        used += content_event(event + used, c->left == events);
        c->left--;
        put(c, event, used);
        uint64_t time = now();
        c->due += c->pace;
        if (c->due < time)
            c->due = time; /* late: do not send a burst to catch up */
    } else {
        put(c, event, last_events(event, c->usage));
        answered(c);
    }
}

/* The value of a field of a small flat JSON body: where it begins, or NULL. */
static const char *field(const char *body, size_t size, const char *name) {
    const char *at = memmem(body, size, name, strlen(name)), *end = body + size;
    if (!at)
        return NULL;
    for (at += strlen(name); at < end && (*at == ' ' || *at == ':'); at++)
        ;
    return at < end ? at : NULL;
}

static void respond(connection *c, int get, const char *body, size_t size) {
    const char *stream = field(body, size, "\"stream\""), *seed = field(body, size, "\"seed\"");
    const char *usage = field(body, size, "\"include_usage\"");
    int streams = stream && *stream == 't';
    c->usage = usage && *usage == 't';
    c->pace = get ? 0 : streams ? interval_ns : delay_ns;
    if (seed)
        c->pace = strtoull(seed, NULL, 10) * 1000;
    if (streams && c->pace) {
        c->left = events;
        wait_until(c, STREAMING, now());
    } else if (streams)
        stream_at_once(c);
    else if (c->pace)
        wait_until(c, DELAYED, now() + c->pace);
    else {
        put(c, get ? models : answer, get ? models_size : answer_size);
        answered(c);
    }
}

/* One request, if it is complete. The input always ends with a NUL that does not count. */
static int take_request(connection *c) {
    char *end = memmem(c->in, c->in_size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - c->in) + 4, body;
    *end = 0;
    const char *length = strcasestr(c->in, "\ncontent-length:");
    int chunked = strcasestr(c->in, "\ntransfer-encoding: chunked") != NULL;
    int closing = strcasestr(c->in, "\nconnection: close") || strstr(c->in, " HTTP/1.0");
    int get = !strncmp(c->in, "GET ", 4);
    body = length ? strtoull(length + 16, NULL, 10) : 0;
    *end = '\r';
    if (chunked) {
        char *last = memmem(c->in + head - 2, c->in_size - head + 2, "\r\n0\r\n\r\n", 7);
        if (!last)
            return 0;
        body = (size_t)(last + 7 - c->in) - head;
    }
    if (c->in_size < head + body)
        return 0;
    c->closing = closing;
    respond(c, get, c->in + head, body);
    c->in_size -= head + body;
    memmove(c->in, c->in + head + body, c->in_size + 1);
    return 1;
}

static void receive(connection *c) {
    for (;;) {
        if (c->in_size == c->in_room)
            c->in = grown(c->in, (c->in_room = c->in_room ? c->in_room * 2 : 16384) + 1);
        ssize_t got = recv(c->fd, c->in + c->in_size, c->in_room - c->in_size, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            c->broken = 1;
        if (got <= 0)
            break;
        c->in_size += (size_t)got;
        c->in[c->in_size] = 0;
        if (c->in_size < c->in_room)
            break;
    }
}

static void forget(connection *c) {
    wait_no_more(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

/* Answer what was asked, or forget a connection that is no more. */
static void go_on(connection *c) {
    while (!c->broken && c->state == IDLE && c->in_size && take_request(c))
        ;
    if (c->broken)
        forget(c);
}

static void accept_all(int listening) {
    int one = 1;
    for (int fd; (fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        connection *c = grown(NULL, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

static void prepare(void) {
    char body[3000], text[600] = "";
    while (strlen(text) < 560)
        strcat(text, "words of an answer that says little ");
    int size = sprintf(body,
                       "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1763842000,\"model\":"
                       "\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
                       "\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
                       "\"prompt_tokens\":25,\"completion_tokens\":100,\"total_tokens\":125,\"prompt_tokens_details\":{"
                       "\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}},"
                       "\"system_fingerprint\":\"fp_mock\"}",
                       text);
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s";
    static const char list[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\","
                               "\"created\":1763842000,\"owned_by\":\"mock\"}]}";
    answer_size = (size_t)sprintf(answer, head, size, body);
    models_size = (size_t)sprintf(models, head, (int)sizeof list - 1, list);
    whole = grown(NULL, (size_t)(events + 8) * 768);
}

static int listen_on(int port) {
    int one = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1024)) {
        perror("listen");
        exit(1);
    }
    return listening;
}

/* Milliseconds until something is due, rounded up: a measuring instrument that spins takes the core of another. */
static int patience(void) {
    uint64_t first = UINT64_MAX, time = now();
    for (size_t i = 0; i < waiting_count; i++)
        if (waiting[i]->due < first)
            first = waiting[i]->due;
    return first == UINT64_MAX ? -1 : first <= time ? 0 : (int)((first - time + 999999u) / 1000000u);
}

int main(int count, char **arguments) {
    int option;
    while ((option = getopt(count, arguments, "n:d:i:s")) > 0) {
        switch (option) {
        case 'n': events = atoi(optarg); break;
        case 'd': delay_ns = strtoull(optarg, NULL, 10) * 1000; break;
        case 'i': interval_ns = strtoull(optarg, NULL, 10) * 1000; break;
        case 's': one_write_each = 1; break;
        default: return 2;
        }
    }
    if (optind >= count) {
        fprintf(stderr, "usage: mock_upstream PORT [-n EVENTS] [-d DELAY_US] [-i INTERVAL_US] [-s]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prepare();
    int listening = listen_on(atoi(arguments[optind]));
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listening, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int found = epoll_wait(poller, ready, 256, patience());
        for (int i = 0; i < found; i++) {
            connection *c = ready[i].data.ptr;
            if (!c) {
                accept_all(listening);
                continue;
            }
            if (ready[i].events & EPOLLOUT)
                put_unsent(c);
            if (ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(c);
            go_on(c);
        }
        uint64_t time = now();
        for (size_t i = waiting_count; i-- > 0;) { /* backwards: the last one takes the place of one that leaves */
            connection *c = waiting[i];
            if (c->due > time)
                continue;
            if (c->state == STREAMING)
                next_event(c);
            else {
                put(c, answer, answer_size);
                answered(c);
            }
            go_on(c);
        }
    }
}
