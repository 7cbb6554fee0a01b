//! What is counted of any process of ours: names and meanings.

use metrics::{Unit, describe_gauge};

/// 1, by role and version.
pub(super) const BUILD: &str = "flwr_quic_build_info";
/// 1 if the process is of use, else 0.
pub(super) const READY: &str = "flwr_quic_ready";
/// Room on the disk of a folder, by what is in it.
pub(super) const DISK_FREE: &str = "flwr_quic_disk_free_bytes";
/// Size of that disk, by what is in the folder.
pub(super) const DISK_SIZE: &str = "flwr_quic_disk_size_bytes";
/// Size of the database, with what is still to be moved into it.
pub(super) const DATABASE: &str = "flwr_quic_database_bytes";
/// When a certificate expires, by what it is for.
pub(super) const CERTIFICATE: &str = "flwr_quic_certificate_expiry_timestamp_seconds";

/// Says what each of them means. A recorder has to be installed.
pub(super) fn describe() {
    let gauges = [
        (BUILD, Unit::Count, "1, with what this process is"),
        (
            READY,
            Unit::Count,
            "1 if the process is of use at the moment, as /readyz says, else 0",
        ),
        (
            DISK_FREE,
            Unit::Bytes,
            "Room for this process on the disk where its folder is",
        ),
        (
            DISK_SIZE,
            Unit::Bytes,
            "Size of the disk where the folder is",
        ),
        (
            DATABASE,
            Unit::Bytes,
            "Size of the database, with what is still to be moved into it",
        ),
        (
            CERTIFICATE,
            Unit::Seconds,
            "Unix time when the certificate in the file expires, the first of a chain, the last of several CAs; 0 if it cannot be read",
        ),
    ];
    for (name, unit, meaning) in gauges {
        describe_gauge!(name, unit, meaning);
    }
}
