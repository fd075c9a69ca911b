//! Which addresses a request may go to: public ones, and those in a network that the operator named.
//!
//! Pure functions. An address that carries another in it is judged by the one that packets would reach; what the
//! registries of IANA do not call globally reachable is refused, and so is what clouds serve their secrets from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::pipeline::network::Network;

/// The address to connect to, or why it is refused.
pub fn checked(address: IpAddr, named: &[Network]) -> Result<IpAddr, &'static str> {
    // The kernel takes a mapped address for the IPv4 one, so everybody does from here on.
    let address = address.to_canonical();
    if named.iter().any(|network| network.contains(address)) {
        return Ok(address);
    }
    let kind = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    match kind {
        None => Ok(address),
        Some(kind) => Err(kind),
    }
}

/// IPv4 networks that are not the public internet: first address, bits of the prefix, what they are.
const SPECIAL_V4: [([u8; 4], u32, &str); 19] = [
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a carrier"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "metadata of a cloud"),
    ([169, 254, 169, 254], 32, "metadata of a cloud"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved for protocols"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 31, 196, 0], 24, "reserved for protocols"),
    ([192, 52, 193, 0], 24, "reserved for protocols"),
    ([192, 88, 99, 0], 24, "a relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let is_in = |first: [u8; 4], prefix: u32| {
        let shift = 32 - prefix;
        u32::from(address) >> shift == u32::from_be_bytes(first) >> shift
    };
    SPECIAL_V4.iter().find(|(first, prefix, _)| is_in(*first, *prefix)).map(|(_, _, kind)| *kind)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let parts = address.segments();
    let last = Ipv4Addr::from((u32::from(parts[6]) << 16) | u32::from(parts[7]));
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        [0, 0, 0, 0, 0, 0, _, _] => Some("IPv4-compatible"),
        // NAT64, where IPv6 is all there is: what is behind it counts.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => special_v4(last),
        [0x64, 0xff9b, 1, ..] => Some("a translation of the site's own"),
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => Some("a tunnel (ISATAP)"),
        [0x2001, 0, ..] => Some("a tunnel (Teredo)"),
        [0x2001, 0xdb8, ..] => Some("for documentation"),
        [0x2001, second, ..] if second < 0x200 => Some("reserved for protocols"),
        [0x2002, ..] => Some("a tunnel (6to4)"),
        [0x3fff, second, ..] if second < 0x1000 => Some("for documentation"),
        [first, ..] if first & 0xe000 == 0x2000 => None,
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("private"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("private"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast"),
        _ => Some("not the public internet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, named: &[&str]) -> Result<String, &'static str> {
        let named: Vec<Network> = named.iter().map(|network| Network::parse(network).unwrap()).collect();
        checked(address.parse().unwrap(), &named).map(|address| address.to_string())
    }

    #[test]
    fn public_addresses_are_open() {
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "2001:4860:4860::8888",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(check(public, &[]).as_deref(), Ok(public.replace("8.8.8.8", "808:808").as_str()), "{public}");
        }
        // Connected to as what it is.
        assert_eq!(check("::ffff:1.1.1.1", &[]).unwrap(), "1.1.1.1");
    }

    #[test]
    fn everything_else_is_refused() {
        for (address, kind) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.1", "private"),
            ("100.64.0.1", "shared"),
            ("100.100.100.200", "shared"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.169.254", "metadata"),
            ("169.254.170.2", "link-local"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.192", "protocols"),
            ("192.0.2.1", "documentation"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "benchmarks"),
            ("198.19.255.255", "benchmarks"),
            ("203.0.113.9", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:7f00:1", "loopback"),
            ("::ffff:169.254.169.254", "metadata"),
            ("::ffff:10.0.0.1", "private"),
            ("::127.0.0.1", "IPv4-compatible"),
            ("::1.1.1.1", "IPv4-compatible"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b::a9fe:a9fe", "metadata"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b:1::1", "translation"),
            ("2002:7f00:1::", "6to4"),
            ("2002:a9fe:a9fe::1", "6to4"),
            ("2001:0:7f00:1::", "Teredo"),
            ("2001:4860::5efe:7f00:1", "ISATAP"),
            ("2001:4860::200:5efe:7f00:1", "ISATAP"),
            ("2001:db8::1", "documentation"),
            ("2001:2::1", "protocols"),
            ("3fff::1", "documentation"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "private"),
            ("fe80::1", "link-local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
            ("100::1", "not the public internet"),
            ("5f00::1", "not the public internet"),
        ] {
            let refused = check(address, &[]).unwrap_err();
            assert!(refused.contains(kind), "{address}: {refused}");
        }
    }

    #[test]
    fn a_named_network_is_open_and_nothing_beside_it() {
        assert_eq!(check("10.1.2.3", &["10.1.0.0/16"]).unwrap(), "10.1.2.3");
        assert_eq!(check("::ffff:10.1.2.3", &["10.1.0.0/16"]).unwrap(), "10.1.2.3");
        check("10.2.0.1", &["10.1.0.0/16"]).unwrap_err();
        check("127.0.0.1", &["10.0.0.0/8"]).unwrap_err();
        // A tunnel to a named network is not that network.
        check("2002:0a01:0203::", &["10.1.0.0/16"]).unwrap_err();
        check("64:ff9b::10.1.2.3", &["10.1.0.0/16"]).unwrap_err();
        check("::10.1.2.3", &["10.1.0.0/16"]).unwrap_err();
        assert_eq!(check("fd00::1", &["fd00::/64"]).unwrap(), "fd00::1");
        assert_eq!(check("::1", &["::1/128"]).unwrap(), "::1");
    }
}
