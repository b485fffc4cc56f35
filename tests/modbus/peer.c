/* A Modbus/TCP server made of libmodbus, as a peer that shares no code with ours.
 * Prints its port, then serves until its standard input ends. Register n holds n; 8 is the number of writes. */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <sys/select.h>
#include <unistd.h>

int main(void) {
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(100, 100, 400, 400);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    int listener, connection = -1, i;

    for (i = 0; i < 400; i++)
        map->tab_registers[i] = map->tab_input_registers[i] = (uint16_t)i;
    map->tab_registers[100] = 3;
    for (i = 0; i < 100; i++)
        map->tab_bits[i] = map->tab_input_bits[i] = i % 3 == 0;
    map->tab_registers[8] = 0;
    listener = modbus_tcp_listen(context, 1);
    if (listener < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        return EXIT_FAILURE;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(STDIN_FILENO, &ready);
        FD_SET(connection >= 0 ? connection : listener, &ready);
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0 || FD_ISSET(STDIN_FILENO, &ready))
            break;
        if (connection < 0) {
            connection = modbus_tcp_accept(context, &listener);
            continue;
        }
        i = modbus_receive(context, query);
        if (i < 0) {
            modbus_close(context);
            connection = -1;
        } else if (i > 0) {
            uint8_t function = query[modbus_get_header_length(context)];
            map->tab_registers[8] += function == 5 || function == 6 || function == 16;
            modbus_reply(context, query, i, map);
        }
    }
    return EXIT_SUCCESS;
}
