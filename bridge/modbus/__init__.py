"""The Modbus edge: profiles (data files), pure codec and read planner, one loop for all connections."""
