//! The standard gRPC health service, as far as Flower 1.22 serves it: everything is serving, and
//! watching is not implemented (Flower 1.22, `supercore/grpc_health`).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flwr_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use flwr_transport::{Body, Context, Drain, Drained};
use prost::Message;

use crate::dialect::Answer;
use crate::exchange::Exchange;
use crate::listener::{GrpcListener, serve_exchange};

/// Answers health checks.
#[derive(Clone, Copy, Debug)]
pub struct Health;

impl Exchange for Health {
    const SERVICE: &'static str = "grpc.health.v1.Health";
    const PROTOCOL: &'static str = "Health";

    async fn exchange(
        &self,
        _context: Context,
        method: &str,
        message: Bytes,
        _object: Option<Body>,
    ) -> Result<Answer, tonic::Status> {
        match method {
            "Check" => {
                HealthCheckRequest::decode(message)
                    .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
                Ok(Answer::message(&HealthCheckResponse {
                    status: ServingStatus::Serving.into(),
                }))
            }
            "Watch" => Err(tonic::Status::unimplemented("Watch is not implemented")),
            _ => Err(tonic::Status::unimplemented("Method not found!")),
        }
    }
}

impl GrpcListener<Health> {
    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.local()
    }

    /// Answers health checks until the drain is asked.
    pub async fn serve_health(self, drain: Drain) -> Drained {
        serve_exchange(self, Arc::new(Health), drain).await
    }
}
