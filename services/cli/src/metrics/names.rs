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
/// When a certificate that is in force expires, by what it is for.
pub(crate) const CERTIFICATE: &str = "flwr_quic_certificate_expiry_timestamp_seconds";
/// 1 if the files have others that are refused, else 0, by what they are for.
pub(crate) const REFUSED: &str = "flwr_quic_certificate_refused";

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
            "Unix time when the certificate expires that is in force, the first of a chain, the last of several CAs",
        ),
        (
            REFUSED,
            Unit::Count,
            "1 if what its files have now is refused and that of before is in force, else 0",
        ),
    ];
    for (name, unit, meaning) in gauges {
        describe_gauge!(name, unit, meaning);
    }
}
