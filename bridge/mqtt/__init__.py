"""The MQTT edge: a pure ``render()``, the client, and the broker started when none is configured."""
