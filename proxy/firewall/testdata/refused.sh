# ftpalg: these rules cannot be made.
# mark 0x1 and divert mark 0x1: neither may be 0, nor may they be the same
# route table 254: must be 1 to 2147483647, and not 253 to 255
# listener "x\nrm -rf /": no ports to intercept
# listener "x\nrm -rf /": redirect needs data ports, as clients dial the server's address for data too
# listener "x\nrm -rf /": interface "a\" b": must be a whole name of 1 to 15 bytes
