//! Addresses: what people type, where something listens, and how it is reached from here and elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, anyhow};
use tokio::net::lookup_host;

use crate::error::CommandError;

/// The port of an address that names none.
pub(crate) const PORT_DEFAULT: u16 = 7420;
/// Addresses for documentation (RFC 5737, RFC 3849): nobody has them, so the way to them is the way out.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The address behind a name, with the default port if it has none. Of several, the first of IPv4: that is
/// where services listen unless told otherwise.
///
/// # Errors
///
/// If nobody knows the name.
pub(crate) async fn resolve(name: &str) -> Result<SocketAddr, CommandError> {
    if let Ok(address) = name.parse() {
        return Ok(address);
    }
    let with_port = match name.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT_DEFAULT).to_string(),
        Err(_) if name.contains(':') => name.to_owned(),
        Err(_) => format!("{name}:{PORT_DEFAULT}"),
    };
    let found = lookup_host(&with_port)
        .await
        .with_context(|| format!("failed to look up the farm `{name}`"));
    let mut found: Vec<SocketAddr> = found.map_err(CommandError::usage)?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    let first = found.first().copied();
    first.ok_or_else(|| CommandError::usage(anyhow!("the name `{name}` has no address")))
}

/// How this machine reaches what listens at `listen`: by loopback where that is all addresses.
pub(crate) fn from_here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// How others reach what listens at `listen`: as `advertise` says, else there, else, where that is all
/// addresses, by the one that this machine shows to the network.
pub(crate) fn from_elsewhere(listen: SocketAddr, advertise: Option<SocketAddr>) -> SocketAddr {
    match advertise {
        Some(advertised) => advertised,
        None if listen.ip().is_unspecified() => {
            SocketAddr::new(shown_to_the_network(listen), listen.port())
        }
        None => listen,
    }
}

/// The address that packets to elsewhere leave with; loopback if there is no way out. Sends nothing.
fn shown_to_the_network(listen: SocketAddr) -> IpAddr {
    let shown = |somewhere: &IpAddr| -> Option<IpAddr> {
        let any: IpAddr = match somewhere {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((*somewhere, PORT_DEFAULT)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_unspecified()).then_some(ip)
    };
    let of_its_family = SOMEWHERE
        .iter()
        .filter(|somewhere| listen.is_ipv6() || somewhere.is_ipv4());
    let found = of_its_family.filter_map(shown).next();
    found.unwrap_or_else(|| from_here(listen).ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn all_addresses_are_reached_by_loopback_from_here() {
        assert_eq!(from_here(address("0.0.0.0:7")), address("127.0.0.1:7"));
        assert_eq!(from_here(address("[::]:7")), address("[::1]:7"));
        assert_eq!(from_here(address("10.1.2.3:7")), address("10.1.2.3:7"));
    }

    #[test]
    fn others_are_never_told_all_addresses() {
        let all = address("0.0.0.0:7");
        let told = from_elsewhere(all, None);
        assert!(!told.ip().is_unspecified() && told.port() == 7, "{told}");
        let advertised = Some(address("192.0.2.9:99"));
        assert_eq!(from_elsewhere(all, advertised), address("192.0.2.9:99"));
        let one = address("127.0.0.1:7");
        assert_eq!(from_elsewhere(one, None), one);
    }

    #[tokio::test]
    async fn names_and_numbers_lead_to_the_same_address() {
        // A root without `/etc/hosts` may know no names at all.
        if let Ok(named) = resolve("localhost:7911").await {
            assert_eq!(named, address("127.0.0.1:7911"));
        }
        assert_eq!(
            resolve("127.0.0.1").await.unwrap(),
            address("127.0.0.1:7420")
        );
        assert_eq!(resolve("::1").await.unwrap(), address("[::1]:7420"));
    }
}
