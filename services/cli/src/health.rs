//! `flwr-quic health`: whether a daemon answers, for whoever watches over it.

use std::path::Path;

use flwr_certs::ClientTls;
use flwr_compat_grpc::{
    client::{Questioner, WITH_TLS},
    f1::look,
};
use flwr_transport::{ConnectError, Current};
use tokio::time::timeout;

use crate::{
    address::Address,
    args::health::HealthOptions,
    block_on,
    exit::{Exit, sentence},
};

/// Asks, and gives what to print.
///
/// # Errors
/// When nobody answers in time, or the daemon says that it does not serve.
pub(crate) fn run(options: &HealthOptions) -> Result<String, Exit> {
    block_on(async {
        let patience = options.timeout;
        timeout(patience, ask(options)).await.unwrap_or_else(|_| {
            Err(Exit::Problem(format!(
                "{} does not answer within {} s",
                options.address,
                patience.as_secs()
            )))
        })
    })
}

async fn ask(options: &HealthOptions) -> Result<String, Exit> {
    let name = &options.address;
    let Address { host, port } = Address::parse(name)?;
    let no_answer = |error: ConnectError| Exit::Problem(error.message);
    let Some(roots) = &options.root_certificates else {
        let there = Questioner::new(host, port, None, options.timeout);
        let said = look::health(&there).await;
        // This command takes TLS when it is told whom to trust.
        said.map_err(|error| {
            Exit::Problem(error.message.replace(WITH_TLS, "give --root-certificates"))
        })?;
        return Ok(format!("{name} is serving\n"));
    };
    let tls = ClientTls::load(Some(Path::new(roots)), None)
        .map_err(|error| Exit::Problem(format!("`--root-certificates`: {}", sentence(&error))))?;
    let there = Questioner::new(host, port, Some(Current::new(tls)), options.timeout);
    let server = look::identify(&there).await.map_err(no_answer)?;
    match server.serves {
        Some(service) => Ok(format!("{name} serves the {} API\n", service.name())),
        None => Err(Exit::Problem(format!("no API of Flower is at {name}"))),
    }
}
