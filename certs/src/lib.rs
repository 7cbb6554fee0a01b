//! Keys and certificates of a Flower federation.
//!
//! Owned here:
//! - node authentication of the Fleet API: [`NodePublicKey`], [`NodeKeyPair`], [`AllowList`], [`KeyCache`] and
//!   [`verify_node_request`], which runs the checks of a signed request in the order Flower 1.22 runs them;
//! - the secret that launchers of apps prove themselves with: [`JoinSecret`] and [`JoinSecretDigest`];
//! - timestamps as Flower writes and reads them: [`parse_iso`] and [`format_iso`];
//! - X.509: making a [`Ca`] and what it signs ([`create_ca`], [`create_server`], [`create_clients`]), making them anew
//!   ([`renew`], [`roll_over`]), looking at certificates ([`show`], [`verify`]), and the configurations of a TLS server ([`ServerTls`]) and a TLS client
//!   ([`ClientTls`]).
//!
//! Left out: which node a key is bound to (the SuperLink's state knows), and anything about the wire.
//! Nothing here prints, logs or reads a clock; the time is an argument, in Unix seconds. (rustls reads the clock by
//! itself when it judges a server's certificate.)

mod allow_list;
mod ca;
mod chain;
mod client_certificate;
mod client_tls;
mod csv_list;
mod files;
mod fingerprint;
mod handshake;
mod inspect;
mod join_secret;
mod judged;
mod key_cache;
mod key_pair;
mod key_type;
mod layout;
mod leaf;
mod node_key;
mod node_proof;
mod node_tls;
mod openssh;
mod pem_file;
mod pkcs8;
mod renew;
mod rollover;
mod timestamp;
mod tls;
mod verify;

pub use allow_list::{AllowList, Reload};
pub use ca::{Ca, CaOptions, CertCurve, CertError};
pub use client_certificate::{ClientCertificate, demanding_certificates};
pub use client_tls::{ClientTls, ClientTlsError, OwnFiles};
pub use csv_list::{AddOutcome, CellProblem, ListError, add_to_list};
pub use files::WriteError;
pub use fingerprint::Fingerprint;
pub use handshake::HandshakeError;
pub use inspect::{CertInfo, show, verify};
pub use join_secret::{
    JOIN_SECRET_HEADER, JoinSecret, JoinSecretDigest, JoinSecretError, LoadedSecret,
    WRONG_JOIN_SECRET,
};
pub use key_cache::KeyCache;
pub use key_pair::{KeyFileError, KeyFiles, NodeKeyPair};
pub use key_type::KeyType;
pub use layout::{
    Layout, Role, WriteOptions, client_certificates, create_ca, create_client_for, create_clients,
    create_server, load_ca, server_certificates,
};
pub use leaf::{Leaf, LeafOptions, usual_names};
pub use node_key::{NodeKeyError, NodePublicKey};
pub use node_proof::proved_key;
pub use node_tls::{asking_for_node_keys, node_key_in};
pub use pem_file::FileError;
pub use renew::{RenewOptions, Renewal, Renewed, renew};
pub use rollover::{retire_former, roll_over};
pub use timestamp::{TimestampError, format_iso, parse_iso};
pub use tls::{ServerTls, TlsError};
pub use verify::{
    AuthError, PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, verify_node_request,
};
