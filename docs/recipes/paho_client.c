/* A device on Paho C: paho_client USER DEVICE PEER. From the environment: IM_HOST, IM_PORT, IM_PASSWORD.
 * It speaks MQTT 3.1.1, or 5 with IM_VERSION=5, for which Paho has functions of their own.
 *
 *     apt-get install libpaho-mqtt-dev && gcc -O2 -Wall -o paho_client paho_client.c -lpaho-mqtt3c
 *
 * Each line of stdin is sent to PEER until the server says `sent`; what comes is kept in a file before it is acknowledged, once. */

#include <MQTTClient.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { REPEAT_S = 5, LINE = 8192 };

static MQTTClient client;
static char waiting[65]; /* the id of what is on its way; empty: nothing */
static long seen;        /* the newest pos that is in the file */
static FILE *inbox;
static const char *user;
static int five; /* MQTT 5 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;

/* The value behind "name": at the top of an item, where the server puts its fields before any body; within a string a quote
 * is escaped, so nothing in there looks like a field. */
static const char *field(const char *item, const char *name) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(item, key);
    return found ? found + strlen(key) : NULL;
}

static int is_text(const char *value, const char *text) {
    size_t length = strlen(text);
    return value && *value == '"' && !strncmp(value + 1, text, length) && value[length + 1] == '"';
}

static void print_text(const char *value) { /* a JSON string; its escapes as they are */
    for (const char *at = value + 1; *at && *at != '"'; at++) {
        if (*at == '\\') putchar(*at++);
        putchar(*at);
    }
}

static int message_arrived(void *context, char *topic, int length, MQTTClient_message *message) {
    char *item = strndup(message->payload, message->payloadlen);
    const char *op = field(item, "op"), *id = field(item, "id"), *pos = field(item, "pos"), *body = field(item, "body");
    pthread_mutex_lock(&lock);
    if ((is_text(op, "sent") || is_text(op, "error")) && *waiting && is_text(id, waiting)) {
        if (is_text(op, "error")) fprintf(stderr, "not sent: %s\n", item);
        *waiting = 0;
        pthread_cond_signal(&answered);
    }
    pthread_mutex_unlock(&lock);
    if (pos && !is_text(op, "welcome") && atol(pos) > seen) { /* what has a known pos is a repeat */
        fprintf(inbox, "%s\n", item);
        fflush(inbox);
        fsync(fileno(inbox));
        seen = atol(pos);
        if (is_text(op, "msg") && body && *body == '"') {
            print_text(field(item, "from"));
            printf(": ");
            print_text(body);
            putchar('\n');
            fflush(stdout);
        }
    }
    free(item);
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return 1; /* now the PUBACK leaves */
}

static void connection_lost(void *context, char *cause) {
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&answered);
    pthread_mutex_unlock(&lock);
}

static int connected(void) {
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer, options5 = MQTTClient_connectOptions_initializer5;
    if (five) options = options5;
    else options.cleansession = 0;
    options.username = user;
    options.password = getenv("IM_PASSWORD");
    if (!five) return MQTTClient_connect(client, &options) == MQTTCLIENT_SUCCESS;
    MQTTProperties kept = MQTTProperties_initializer;
    MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, .value.integer4 = 30 * 24 * 3600};
    MQTTProperties_add(&kept, &expiry);
    MQTTResponse response = MQTTClient_connect5(client, &options, &kept, NULL);
    int done = response.reasonCode == MQTTREASONCODE_SUCCESS;
    MQTTResponse_free(response);
    MQTTProperties_free(&kept);
    return done;
}

static void stay_connected(void) {
    while (!MQTTClient_isConnected(client)) {
        if (connected()) {
            char filter[160];
            snprintf(filter, sizeof filter, "im/v1/%s/#", user);
            if (five) MQTTResponse_free(MQTTClient_subscribe5(client, filter, 1, NULL, NULL));
            else MQTTClient_subscribe(client, filter, 1);
        } else {
            sleep(1);
        }
    }
}

static void *watch(void *context) {
    for (;; sleep(1)) stay_connected();
    return NULL;
}

/* Send until it is answered; the id makes repeats harmless. */
static void send_line(const char *topic, const char *request) {
    pthread_mutex_lock(&lock);
    while (*waiting) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += MQTTClient_isConnected(client) ? REPEAT_S : 1;
        pthread_mutex_unlock(&lock);
        if (five) MQTTResponse_free(MQTTClient_publish5(client, topic, strlen(request), request, 1, 0, NULL, NULL));
        else MQTTClient_publish(client, topic, strlen(request), request, 1, 0, NULL);
        pthread_mutex_lock(&lock);
        if (*waiting) pthread_cond_timedwait(&answered, &lock, &until);
    }
    pthread_mutex_unlock(&lock);
}

static void escaped(const char *text, char *out, size_t room) {
    size_t used = 0;
    for (; *text && used + 7 < room; text++) {
        if (*text == '"' || *text == '\\') out[used++] = '\\';
        if ((unsigned char)*text < 0x20) used += snprintf(out + used, 7, "\\u%04x", *text);
        else out[used++] = *text;
    }
    out[used] = 0;
}

int main(int count, char **argument) {
    if (count != 4) return fprintf(stderr, "usage: paho_client USER DEVICE PEER\n"), 2;
    user = argument[1];
    char url[160], file[160], topic[200], line[LINE], body[2 * LINE], request[3 * LINE];
    snprintf(url, sizeof url, "tcp://%s:%s", getenv("IM_HOST") ? getenv("IM_HOST") : "127.0.0.1", getenv("IM_PORT") ? getenv("IM_PORT") : "1883");
    snprintf(topic, sizeof topic, "im/v1/%s/%s/up", user, argument[2]);
    snprintf(file, sizeof file, "%s-%s.jsonl", user, argument[2]);
    inbox = fopen(file, "a+");
    if (!inbox) return perror(file), 1;
    while (fgets(line, sizeof line, inbox))
        if (field(line, "pos")) seen = atol(field(line, "pos"));

    five = getenv("IM_VERSION") && !strcmp(getenv("IM_VERSION"), "5");
    MQTTClient_createOptions made = MQTTClient_createOptions_initializer;
    if (five) made.MQTTVersion = MQTTVERSION_5;
    MQTTClient_createWithOptions(&client, url, argument[2], MQTTCLIENT_PERSISTENCE_NONE, NULL, &made);
    MQTTClient_setCallbacks(client, NULL, connection_lost, message_arrived, NULL);
    pthread_t watcher;
    pthread_create(&watcher, NULL, watch, NULL);

    for (long number = 1; fgets(line, sizeof line, stdin); number++) {
        line[strcspn(line, "\n")] = 0;
        escaped(line, body, sizeof body);
        snprintf(waiting, sizeof waiting, "%lx-%lx-%ld", (long)time(NULL), (long)getpid(), number);
        snprintf(request, sizeof request, "{\"op\":\"send\",\"id\":\"%s\",\"to\":\"%s\",\"body\":\"%s\"}", waiting, argument[3], body);
        send_line(topic, request);
    }
    if (five) MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL);
    else MQTTClient_disconnect(client, 1000);
    return 0;
}
