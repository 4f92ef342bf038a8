//! `inet` and `cidr`.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

/// An address with the length of its network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address` or `address/bits`, addresses in full.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 3 => {
                digits.parse().ok().filter(|bits| *bits <= most)?
            }
            Some(_) => return None,
        };
        Some(Self { address, bits })
    }

    fn parts(self) -> (bool, u128) {
        match self.address {
            IpAddr::V4(address) => (false, u128::from(address.to_bits()) << 96),
            IpAddr::V6(address) => (true, address.to_bits()),
        }
    }

    /// Whether the address has bits outside of its network, which a `cidr` may not have.
    pub(crate) fn has_host_bits(self) -> bool {
        let (_, address) = self.parts();
        address.checked_shl(self.bits.into()).unwrap_or(0) != 0
    }

    /// Bytes that are equal for equal ones; they do not sort.
    pub(crate) fn write_key(self, out: &mut Vec<u8>) {
        let (six, address) = self.parts();
        out.extend_from_slice(&[u8::from(six), self.bits]);
        out.extend_from_slice(&address.to_be_bytes());
    }

    /// The order of `network_cmp`: family, the bits that both networks have, their lengths, the addresses.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let ((six, address), (other_six, other_address)) = (self.parts(), other.parts());
        let common = u32::from(self.bits.min(other.bits));
        let head = |address: u128| address.checked_shr(128 - common).unwrap_or(0);
        six.cmp(&other_six)
            .then_with(|| head(address).cmp(&head(other_address)))
            .then_with(|| self.bits.cmp(&other.bits))
            .then_with(|| address.cmp(&other_address))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}
