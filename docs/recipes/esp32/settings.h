// What is particular to one device.
#define WIFI_NAME "network"
#define WIFI_PASSWORD "secret"
#define IM_HOST "192.0.2.1"
#define IM_PORT 1883
#define IM_USER "greenhouse"
#define IM_PASSWORD ""
#define IM_DEVICE "esp32"
#define IM_PEER "gardener"
