//! One end of the link: a namespace with a TUN device.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::namespace::Namespace;
use crate::{Error, MTU};

/// A namespace with a device and an address in it.
#[derive(Debug)]
pub(crate) struct End {
    namespace: Namespace,
    address: Ipv4Addr,
    prefix_length: u8,
}

impl End {
    /// The device lives as long as its handle.
    pub(crate) fn create(
        name: &str,
        address: Ipv4Addr,
        prefix_length: u8,
    ) -> Result<(Self, SyncDevice), Error> {
        let namespace = Namespace::create(name)?;
        let device = namespace.within(open)??;
        let end = Self {
            namespace,
            address,
            prefix_length,
        };
        end.change_address("add", address)?;
        end.namespace.ip(&["link", "set", DEVICE, "up"])?;
        Ok((end, device))
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Deletes the address and adds the new one.
    pub(crate) fn readdress(&mut self, address: Ipv4Addr) -> Result<(), Error> {
        self.change_address("del", self.address)?;
        if let Err(error) = self.change_address("add", address) {
            self.change_address("add", self.address)?;
            return Err(error);
        }
        self.address = address;
        Ok(())
    }

    /// Packets that the kernel dropped because they were not read fast enough.
    pub(crate) fn packets_dropped(&self) -> Result<u64, Error> {
        let table = self
            .namespace
            .within(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        dropped(&table)
            .ok_or_else(|| Error::Io(io::Error::other("the device is not in /proc/net/dev")))
    }

    fn change_address(&self, verb: &str, address: Ipv4Addr) -> Result<(), Error> {
        let address = format!("{address}/{}", self.prefix_length);
        self.namespace
            .ip(&["address", verb, &address, "dev", DEVICE])
    }
}

/// Without offloads: the kernel cuts large segments before they come here.
fn open() -> io::Result<SyncDevice> {
    let builder = DeviceBuilder::new()
        .name(DEVICE)
        .layer(Layer::L3)
        .mtu(MTU)
        .tx_queue_len(QUEUE_PACKETS);
    let device = builder
        .offload(false)
        .packet_information(false)
        .enable(false)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// The twelfth number of the device's line: drops on sending.
fn dropped(table: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'))?;
    line.split_whitespace().nth(11)?.parse().ok()
}

const DEVICE: &str = "wan0";
/// The default of 500 packets is less than a burst of segmented packets.
const QUEUE_PACKETS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_in_the_table_of_the_kernel() {
        let table = "Inter-|   Receive                  |  Transmit\n\
             lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n \
             wan0: 100 2 0 0 0 0 0 0 9 10 11 42 13 14 15 16\n";
        assert_eq!(dropped(table), Some(42));
        assert_eq!(dropped("lo: 1 2"), None);
    }
}
