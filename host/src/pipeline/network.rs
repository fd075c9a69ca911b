//! Networks by their CIDR notation: which private ones an operator named.
//!
//! Values only: nothing here opens a socket or asks for a name.

use core::net::{IpAddr, Ipv6Addr};

/// The shortest prefixes that may be named: a shorter one is not a network that anybody operates, but everything.
const PREFIX_MIN: [u8; 2] = [8, 7];

/// A network: the addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: u128,
    prefix: u8,
    is_v4: bool,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address. The bits after the prefix must be zero: whoever writes
    /// `10.1.2.3/8` means something else than what it says.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "is not a network".to_owned())?;
        let (width, least) = if address.is_ipv4() { (32, PREFIX_MIN[0]) } else { (128, PREFIX_MIN[1]) };
        let prefix = match prefix {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse::<u8>().map_err(|_| "is not a network".to_owned())?
            }
            Some(_) => return Err("is not a network".to_owned()),
        };
        if prefix > width {
            return Err(format!("has a prefix of more than {width} bits"));
        }
        if prefix < least {
            return Err(format!("names almost everything: a prefix has at least {least} bits"));
        }
        let network = Self { first: bits(address), prefix, is_v4: address.is_ipv4() };
        if network.first & !network.mask() != 0 {
            return Err("has bits set after its prefix".to_owned());
        }
        Ok(network)
    }

    /// Whether an address is in it. An address of one family is never in a network of the other.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4 && bits(address) & self.mask() == self.first
    }

    fn mask(&self) -> u128 {
        let width = if self.is_v4 { 32 } else { 128 };
        let ones = u128::MAX.checked_shl(u32::from(width - self.prefix)).unwrap_or(0);
        if self.is_v4 { ones & u128::from(u32::MAX) } else { ones }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(Ipv6Addr::from(address.octets())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_begins_with_its_bits() {
        let check = |network: &str, address: &str, expected: bool| {
            let holds = Network::parse(network).unwrap().contains(address.parse().unwrap());
            assert_eq!(holds, expected, "{network} {address}");
        };
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1/32", "127.0.0.2", false);
        check("192.168.4.0/22", "192.168.7.255", true);
        check("192.168.4.0/22", "192.168.8.0", false);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/8", "fe80::1", false);
        check("::1", "::1", true);
        // The families do not mix: what a mapped address is, is decided where addresses are judged.
        check("127.0.0.0/8", "::ffff:127.0.0.1", false);
        check("fc00::/7", "10.0.0.1", false);
    }

    #[test]
    fn what_is_not_a_network_or_is_nearly_everything_is_refused() {
        let check = |text: &str, expected: &str| {
            let mistake = Network::parse(text).unwrap_err();
            assert!(mistake.contains(expected), "{text}: {mistake}");
        };
        for text in
            ["", "example.com", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8/8", "10.0.0/8", "010.0.0.1"]
        {
            check(text, "is not a network");
        }
        check("10.0.0.0/33", "more than 32 bits");
        check("::/129", "more than 128 bits");
        check("0.0.0.0/0", "almost everything");
        check("::/0", "almost everything");
        check("10.1.2.3/8", "bits set after its prefix");
    }
}
