//! Where a SuperNode finds its SuperLink, and how it speaks to it over REST.

use std::ffi::OsStr;

use flwr_certs::ClientTls;
use tracing::warn;

use super::credentials::load_client_tls;
use crate::{
    address::Address,
    args::supernode::Carrier,
    exit::{Code, Exit},
};

/// Where the SuperLink is, and for REST what is spoken there.
pub(super) fn superlink_address(
    carrier: Carrier,
    text: &str,
) -> Result<(Address, Option<Scheme>), Exit> {
    let (address, scheme) = match carrier {
        Carrier::Rest => Scheme::split(text),
        Carrier::GrpcAdapter | Carrier::GrpcRere => (text, None),
    };
    let address = Address::parse(address).map_err(|_unparsable| {
        let context = format!("SuperLink address ({text}) cannot be parsed.");
        Exit::Code(Code::ADDRESS_INVALID, context)
    })?;
    if carrier == Carrier::Rest && scheme.is_none() {
        let context = format!("The address is {text}.");
        return Err(Exit::Code(Code::REST_ADDRESS_INVALID, context));
    }
    Ok((address, scheme))
}

/// What an address for REST begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// Takes it off an address.
    pub(super) fn split(address: &str) -> (&str, Option<Self>) {
        if let Some(rest) = address.strip_prefix("https://") {
            return (rest, Some(Self::Https));
        }
        match address.strip_prefix("http://") {
            Some(rest) => (rest, Some(Self::Http)),
            None => (address, None),
        }
    }
}

/// TLS to a REST server. As in Flower, the address alone decides, not `--insecure`.
pub(super) fn load_rest_tls(
    scheme: Scheme,
    insecure: bool,
    root_certificates: Option<&OsStr>,
    server: &str,
) -> Result<Option<ClientTls>, Exit> {
    match scheme {
        Scheme::Https if insecure && root_certificates.is_none() => {
            warn!("The address {server} asks for TLS, so `--insecure` changes nothing.");
            load_client_tls(false, root_certificates, server)
        }
        Scheme::Http if insecure || root_certificates.is_some() => {
            load_client_tls(insecure, root_certificates, server)?;
            if !insecure {
                warn!(
                    "{UNENCRYPTED}, in spite of `--root-certificates`: give an address with https://."
                );
            }
            Ok(None)
        }
        Scheme::Http => {
            warn!("{UNENCRYPTED}: give an address with https://, or `--insecure`.");
            Ok(None)
        }
        Scheme::Https => load_client_tls(insecure, root_certificates, server),
    }
}

const UNENCRYPTED: &str =
    "The address of the SuperLink begins with http://, so nothing is encrypted";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_address_says_whether_there_is_tls() {
        for (text, shown, scheme) in [
            ("http://127.0.0.1:9095", "127.0.0.1:9095", Scheme::Http),
            (
                "https://link.example:443",
                "link.example:443",
                Scheme::Https,
            ),
            ("https://[::1]:9095", "[::1]:9095", Scheme::Https),
        ] {
            let (address, found) = superlink_address(Carrier::Rest, text).unwrap();
            assert_eq!((address.to_string().as_str(), found), (shown, Some(scheme)));
        }
    }

    #[test]
    fn other_addresses_end_with_flowers_codes() {
        for (carrier, text, code) in [
            (Carrier::Rest, "127.0.0.1:9095", 300),
            (Carrier::Rest, "localhost", 600),
            (Carrier::Rest, "http://localhost", 600),
            (Carrier::Rest, "https://localhost:9095/path", 600),
            (Carrier::GrpcRere, "http://localhost:9092", 600),
        ] {
            let exit = superlink_address(carrier, text).expect_err(text);
            assert!(
                exit.to_string()
                    .starts_with(&format!("Exit Code: {code}\n")),
                "{text}: {exit}"
            );
        }
    }

    #[test]
    fn the_address_alone_decides_about_tls() {
        let tls = |scheme, insecure| load_rest_tls(scheme, insecure, None, "there");
        assert!(tls(Scheme::Http, true).unwrap().is_none());
        assert!(tls(Scheme::Http, false).unwrap().is_none());
        let missing = Some(OsStr::new("/nowhere/ca.crt"));
        assert!(load_rest_tls(Scheme::Http, false, missing, "there").is_err());
        assert!(load_rest_tls(Scheme::Http, true, missing, "there").is_err());
    }
}
