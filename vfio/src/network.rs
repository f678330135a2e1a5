//! The addresses and routes of this machine, asked for over rtnetlink.
//!
//! Only what a person or a daemon configured counts: link-local IPv6 addresses, their routes, and the kernel's own tables for local and
//! broadcast addresses come with every interface that is up and are left out.
//!
//! Message formats: `include/uapi/linux/{netlink,rtnetlink,if_addr}.h` of Linux.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with,
};

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Number of the interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A route over an interface. Prints as `default via 10.0.0.1` or `10.1.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Number of the interface.
    pub interface: u32,
    /// Where it leads: network and bits; `None` is the default route.
    pub destination: Option<(IpAddr, u8)>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.destination {
            Some((network, prefix)) => write!(f, "{network}/{prefix}")?,
            None => f.write_str("default")?,
        }
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}

/// All addresses and routes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Network {
    /// Addresses of all interfaces.
    pub addresses: Vec<Address>,
    /// Routes of all interfaces and tables.
    pub routes: Vec<Route>,
}

/// NETLINK_ROUTE is protocol 0.
const ROUTE: Option<Protocol> = None;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const REQUEST_DUMP: u16 = 0x301;
const HEADER: usize = 16;

impl Network {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When the kernel has no rtnetlink or refuses.
    pub fn of_this_machine() -> io::Result<Self> {
        let mut network = Self::default();
        dump(GET_ADDRESS, |kind, body| {
            if kind == NEW_ADDRESS {
                network.addresses.extend(address(body).filter(|found| !is_link_local(found.address)));
            }
        })?;
        dump(GET_ROUTE, |kind, body| {
            if kind == NEW_ROUTE {
                network.routes.extend(routes(body));
            }
        })?;
        Ok(network)
    }
}

/// Sends a dump request and gives every message of the answer to `each`.
fn dump(request: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, ROUTE)?;
    let mut message = Vec::with_capacity(HEADER + 12);
    message.extend(28_u32.to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend(REQUEST_DUMP.to_ne_bytes());
    // Sequence, sender, and an empty body that is long enough for both kinds: every family, every interface.
    message.extend([0; 4 + 4 + 12]);
    sendto(&socket, &message, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        let (received, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if !messages(buffer.get(..received).unwrap_or_default(), &mut each)? {
            return Ok(());
        }
    }
}

/// Goes through the messages of one datagram; `false` when the dump has ended.
fn messages(mut bytes: &[u8], each: &mut impl FnMut(u16, &[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            DONE => return Ok(false),
            ERROR => {
                let code = word(body, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            _ => each(kind, body),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // A datagram that ends without DONE is followed by another; an empty one never is.
    Ok(true)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The attributes in `bytes`: kind and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets)))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// `struct ifaddrmsg`: family, prefix, flags, scope, interface; then attributes.
fn address(body: &[u8]) -> Option<Address> {
    const REMOTE: u16 = 1;
    const LOCAL: u16 = 2;
    let (prefix, interface) = (*body.get(1)?, word(body, 4)?);
    let mut found = None;
    for (kind, value) in attributes(body.get(8..)?) {
        // On a point-to-point link the first kind is the peer's.
        if kind == LOCAL || (kind == REMOTE && found.is_none()) {
            found = ip(value);
        }
    }
    Some(Address { interface, address: found?, prefix })
}

/// `struct rtmsg`: family, bits of the destination, of the source, service, table, protocol, scope, type, flags; then
/// attributes. A route with several next hops gives one for each.
fn routes(body: &[u8]) -> Vec<Route> {
    const UNICAST: u8 = 1;
    const DESTINATION: u16 = 1;
    const INTERFACE: u16 = 4;
    const GATEWAY: u16 = 5;
    const SEVERAL: u16 = 9;
    if body.get(7) != Some(&UNICAST) {
        return Vec::new();
    }
    let (mut destination, mut interface, mut gateway, mut several) = (None, None, None, None);
    for (kind, value) in attributes(body.get(12..).unwrap_or_default()) {
        match kind {
            DESTINATION => destination = ip(value),
            INTERFACE => interface = word(value, 0),
            GATEWAY => gateway = ip(value),
            SEVERAL => several = Some(value),
            _ => {}
        }
    }
    if destination.is_some_and(is_link_local) {
        return Vec::new();
    }
    let destination = destination.zip(body.get(1).copied());
    let mut routes: Vec<Route> =
        interface.map(|interface| Route { interface, destination, gateway }).into_iter().collect();
    // struct rtnexthop: length, flags, hops, interface; then attributes.
    let mut hops = several.unwrap_or_default();
    while let (Some(length), Some(interface)) = (half(hops, 0), word(hops, 4)) {
        let Some(inner) = hops.get(8..usize::from(length)) else { break };
        let gateway = attributes(inner).find(|(kind, _)| *kind == GATEWAY).and_then(|(_, value)| ip(value));
        routes.push(Route { interface, destination, gateway });
        hops = hops.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    routes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn route_body(prefix: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![2, prefix, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        attributes.iter().for_each(|attribute| body.extend(attribute));
        body
    }

    #[test]
    fn the_kernel_answers() {
        Network::of_this_machine().unwrap();
    }

    #[test]
    fn an_address_prefers_the_local_end_of_a_link() {
        let mut body = vec![2, 24, 0, 0, 7, 0, 0, 0];
        body.extend(attribute(1, &[10, 0, 0, 2]));
        body.extend(attribute(2, &[10, 0, 0, 1]));
        let found = address(&body).unwrap();
        assert_eq!((found.interface, found.to_string().as_str()), (7, "10.0.0.1/24"));
    }

    #[test]
    fn routes_print_as_people_write_them() {
        let default = route_body(0, 1, &[attribute(4, &[3, 0, 0, 0]), attribute(5, &[10, 0, 0, 1])]);
        assert_eq!(routes(&default)[0].to_string(), "default via 10.0.0.1");
        let network = route_body(16, 1, &[attribute(1, &[10, 1, 0, 0]), attribute(4, &[3, 0, 0, 0])]);
        assert_eq!(routes(&network)[0].to_string(), "10.1.0.0/16");
    }

    #[test]
    fn every_hop_of_a_route_counts() {
        let hop = |interface: u8| {
            let mut bytes = vec![16, 0, 0, 0, interface, 0, 0, 0];
            bytes.extend(attribute(5, &[10, 0, 0, interface]));
            bytes
        };
        let body = route_body(0, 1, &[attribute(9, &[hop(4), hop(5)].concat())]);
        let found: Vec<_> = routes(&body).iter().map(|route| (route.interface, route.to_string())).collect();
        assert_eq!(found, [(4, "default via 10.0.0.4".into()), (5, "default via 10.0.0.5".into())]);
    }

    #[test]
    fn what_the_kernel_sets_up_by_itself_does_not_count() {
        assert!(routes(&route_body(32, 2, &[attribute(4, &[3, 0, 0, 0])])).is_empty(), "a local address");
        let link_local = attribute(1, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(routes(&route_body(64, 1, &[link_local, attribute(4, &[3, 0, 0, 0])])).is_empty());
    }

    #[test]
    fn broken_messages_end_without_harm() {
        for length in 0..40 {
            let bytes = vec![0xff; length];
            routes(&bytes);
            address(&bytes);
            assert!(messages(&bytes, &mut |_, _| {}).unwrap());
        }
        let refusal = [20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(messages(&refusal, &mut |_, _| {}).unwrap_err().raw_os_error(), Some(1));
    }
}
