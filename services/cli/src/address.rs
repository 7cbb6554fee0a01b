//! `host:port`, as Flower reads it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use crate::exit::{Code, Exit};

/// An address to listen on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// A name or an IP address, IPv6 without brackets.
    pub(crate) host: String,
    /// 1 to 65535.
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host:port` or `[v6]:port`. As in Flower, the brackets may be missing.
    ///
    /// # Errors
    /// [`Code::ADDRESS_INVALID`] when it is neither, or the port is 0.
    pub(crate) fn parse(text: &str) -> Result<Self, Exit> {
        Self::try_parse(text).ok_or_else(|| {
            Exit::Code(
                Code::ADDRESS_INVALID,
                format!("Address ({text}) cannot be parsed."),
            )
        })
    }

    fn try_parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_v6 = host
            .split('%')
            .next()
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let is_name = !host.is_empty()
            && bracketed.is_none()
            && !host.contains([':', '[', ']', '/', '%', '@'])
            && !host.contains(char::is_whitespace);
        (is_v6 || is_name).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether all addresses of the machine are meant.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified())
    }

    /// Where a process on this machine reaches what listens here.
    pub(crate) fn local_target(&self) -> Self {
        let host = match self.host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1",
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1",
            _ => &self.host,
        };
        Self {
            host: host.to_owned(),
            port: self.port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_ports_are_read() {
        for (text, shown) in [
            ("127.0.0.1:9091", "127.0.0.1:9091"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:65535", "[::1]:65535"),
            ("::1:9092", "[::1]:9092"),
            ("[fe80::1%eth0]:9092", "[fe80::1%eth0]:9092"),
            ("superlink.example.org:9093", "superlink.example.org:9093"),
            ("localhost:09093", "localhost:9093"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn everything_else_is_code_600() {
        for text in [
            "",
            ":",
            "foo",
            "9093",
            ":9093",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "localhost:-1",
            "localhost:+1",
            "localhost:x",
            "http://localhost:9093",
            "[localhost]:9093",
            "[]:9093",
            "[::1:9093",
            "a b:9093",
            "::g:9093",
        ] {
            let exit = Address::parse(text).expect_err(text);
            assert!(
                exit.to_string().starts_with("Exit Code: 600\n"),
                "{text}: {exit}"
            );
            assert!(
                exit.to_string().contains(&format!("({text})")),
                "{text}: {exit}"
            );
        }
    }

    #[test]
    fn a_wildcard_is_reached_through_the_loopback() {
        for (text, shown) in [
            ("0.0.0.0:9091", "127.0.0.1:9091"),
            ("[::]:9091", "[::1]:9091"),
            ("10.0.0.7:9091", "10.0.0.7:9091"),
            ("node.local:9091", "node.local:9091"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.local_target().to_string(), shown);
            assert_eq!(address.is_wildcard(), text != shown);
        }
    }
}
