"""What is wished for one wallbox: charging rules, solar surplus, exceptions until the car leaves."""
