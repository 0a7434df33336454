//! The address of this machine in its local network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The address from which this machine would reach others; nothing is sent to find out. `None` without a network.
pub fn local_address() -> Option<IpAddr> {
    // Addresses for documentation: the system only looks up which way they would be.
    let others = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 255, 255, 255), Ipv4Addr::new(192, 168, 255, 255)];
    others.into_iter().find_map(|other| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(SocketAddr::from((other, 9))).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified() && !address.is_loopback()).then_some(address)
    })
}
