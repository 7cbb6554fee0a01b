//! The table that declares a service: its calls, the trait that serves them and the client.

/// Declares a service from a table of calls.
///
/// Each row is `kind name: Call { fields } -> Response, how_often;`. The kind says what travels
/// beside request and response: `unary` nothing, `upload` a body with the request, `download` a
/// body with the response where there is one, `events` a stream after the response. `repeatable`
/// calls do the same when executed twice, `once` calls do not.
///
/// It makes a struct for each call, `Request` and `Response` (append-only: a row's place in the
/// table is its number on the wire), the protocol marker, the service trait, the adapter `Serve`
/// that turns a service into a [`Handler`](flwr_transport::Handler), and the client.
macro_rules! service {
    (
        $(#[$protocol_doc:meta])*
        protocol $protocol:ident = $wire_name:literal, event $event:ty;
        service $service:ident;
        client $client:ident;
        $(
            $(#[$call_doc:meta])*
            $kind:ident $method:ident: $call:ident {
                $( $(#[$field_doc:meta])* $field:ident: $field_type:ty ),* $(,)?
            } -> $response:ty, $repeat:ident;
        )+
    ) => {
        $(#[$protocol_doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $protocol;

        impl flwr_transport::Protocol for $protocol {
            const NAME: &'static str = $wire_name;
            const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;
            type Request = Request;
            type Response = Response;
            type Event = $event;
        }

        $(
            $(#[$call_doc])*
            #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
            pub struct $call {
                $( $(#[$field_doc])* pub $field: $field_type, )*
            }
        )+

        /// Everything that can be asked of this service.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[expect(missing_docs, reason = "each variant holds the documented call of its name")]
        pub enum Request { $( $call($call), )+ }

        /// Everything this service answers.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[expect(missing_docs, reason = "each variant holds the answer to the call of its name")]
        pub enum Response { $( $call($response), )+ }

        impl flwr_transport::Request for Request {
            fn name(&self) -> &'static str {
                match self { $( Self::$call(_) => stringify!($call), )+ }
            }

            fn idempotent(&self) -> bool {
                match self { $( Self::$call(_) => service!(@repeat $repeat), )+ }
            }
        }

        /// Serves the calls; each method answers the call of its name.
        pub trait $service: Send + Sync + 'static {
            $( service!(@method $kind $(#[$call_doc])* $method, $call, $response, $event); )+
        }

        /// Hands the calls of a transport to a service.
        #[derive(Debug)]
        pub struct Serve<S>(pub S);

        impl<S: $service> flwr_transport::Handler<$protocol> for Serve<S> {
            async fn handle(
                &self,
                context: flwr_transport::Context,
                call: flwr_transport::Call<$protocol>,
            ) -> Result<flwr_transport::Reply<$protocol>, flwr_transport::Status> {
                match call.request {
                    $( Request::$call(request) => {
                        service!(@serve $kind self, $method, $call, context, request, call.body)
                    } )+
                }
            }
        }

        /// Calls the service over whatever carries it.
        #[derive(Clone, Debug)]
        pub struct $client {
            caller: std::sync::Arc<dyn flwr_transport::DynCaller<$protocol>>,
            bearer: Option<flwr_transport::Bearer>,
        }

        impl $client {
            /// A client that presents nothing.
            #[must_use]
            pub fn new(caller: std::sync::Arc<dyn flwr_transport::DynCaller<$protocol>>) -> Self {
                Self { caller, bearer: None }
            }

            /// The same client, presenting `bearer` with every call.
            #[must_use]
            pub fn bearing(&self, bearer: flwr_transport::Bearer) -> Self {
                Self { caller: std::sync::Arc::clone(&self.caller), bearer: Some(bearer) }
            }

            /// What carries its calls, for those who relay calls of others.
            #[must_use]
            pub fn caller(&self) -> &std::sync::Arc<dyn flwr_transport::DynCaller<$protocol>> {
                &self.caller
            }

            fn ask(&self, request: Request, deadline: tokio::time::Instant) -> flwr_transport::Call<$protocol> {
                let mut call = flwr_transport::Call::new(request, deadline);
                call.bearer.clone_from(&self.bearer);
                call
            }

            $( service!(@client $kind $(#[$call_doc])* $method, $call, $response, $event); )+
        }
    };

    (@repeat repeatable) => { true };
    (@repeat once) => { false };

    (@method unary $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        fn $method(&self, context: &flwr_transport::Context, call: $call)
            -> impl Future<Output = Result<$response, flwr_transport::Status>> + Send;
    };
    (@method upload $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        fn $method(&self, context: &flwr_transport::Context, call: $call, body: flwr_transport::Body)
            -> impl Future<Output = Result<$response, flwr_transport::Status>> + Send;
    };
    (@method download $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        fn $method(&self, context: &flwr_transport::Context, call: $call)
            -> impl Future<Output = Result<($response, Option<flwr_transport::Body>), flwr_transport::Status>> + Send;
    };
    (@method events $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        fn $method(&self, context: &flwr_transport::Context, call: $call)
            -> impl Future<Output = Result<($response, flwr_transport::EventStream<$event>), flwr_transport::Status>> + Send;
    };

    (@serve unary $self:ident, $method:ident, $call:ident, $context:ident, $request:ident, $body:expr) => {{
        let response = $self.0.$method(&$context, $request).await?;
        Ok(flwr_transport::Reply::new(Response::$call(response)))
    }};
    (@serve upload $self:ident, $method:ident, $call:ident, $context:ident, $request:ident, $body:expr) => {{
        let body = $body.unwrap_or_else(|| flwr_transport::Body::from_bytes(bytes::Bytes::new()));
        let response = $self.0.$method(&$context, $request, body).await?;
        Ok(flwr_transport::Reply::new(Response::$call(response)))
    }};
    (@serve download $self:ident, $method:ident, $call:ident, $context:ident, $request:ident, $body:expr) => {{
        let (response, body) = $self.0.$method(&$context, $request).await?;
        Ok(flwr_transport::Reply {
            response: Response::$call(response),
            tail: body.map_or(flwr_transport::Tail::None, flwr_transport::Tail::Body),
        })
    }};
    (@serve events $self:ident, $method:ident, $call:ident, $context:ident, $request:ident, $body:expr) => {{
        let (response, events) = $self.0.$method(&$context, $request).await?;
        Ok(flwr_transport::Reply {
            response: Response::$call(response),
            tail: flwr_transport::Tail::Events(events),
        })
    }};

    (@client unary $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// What the service or the transport refuses with.
        pub async fn $method(&self, call: $call, deadline: tokio::time::Instant)
            -> Result<$response, flwr_transport::Status> {
            let call = self.ask(Request::$call(call), deadline);
            match self.caller.call(call).await?.response {
                Response::$call(response) => Ok(response),
                other => Err(crate::service::mismatched(&other)),
            }
        }
    };
    (@client upload $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// What the service or the transport refuses with.
        pub async fn $method(&self, call: $call, body: flwr_transport::Body, deadline: tokio::time::Instant)
            -> Result<$response, flwr_transport::Status> {
            let call = self.ask(Request::$call(call), deadline).with_body(body);
            match self.caller.call(call).await?.response {
                Response::$call(response) => Ok(response),
                other => Err(crate::service::mismatched(&other)),
            }
        }
    };
    (@client download $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// What the service or the transport refuses with.
        pub async fn $method(&self, call: $call, deadline: tokio::time::Instant)
            -> Result<($response, Option<flwr_transport::Body>), flwr_transport::Status> {
            let call = self.ask(Request::$call(call), deadline);
            let reply = self.caller.call(call).await?;
            let body = match reply.tail {
                flwr_transport::Tail::Body(body) => Some(body),
                _ => None,
            };
            match reply.response {
                Response::$call(response) => Ok((response, body)),
                other => Err(crate::service::mismatched(&other)),
            }
        }
    };
    (@client events $(#[$doc:meta])* $method:ident, $call:ident, $response:ty, $event:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// What the service or the transport refuses with.
        pub async fn $method(&self, call: $call, deadline: tokio::time::Instant)
            -> Result<($response, flwr_transport::EventStream<$event>), flwr_transport::Status> {
            let call = self.ask(Request::$call(call), deadline);
            let reply = self.caller.call(call).await?;
            match (reply.response, reply.tail) {
                (Response::$call(response), flwr_transport::Tail::Events(events)) => Ok((response, events)),
                (other, _) => Err(crate::service::mismatched(&other)),
            }
        }
    };
}

/// A peer answered another call than the one made.
pub(crate) fn mismatched(response: &impl std::fmt::Debug) -> flwr_transport::Status {
    let answer: String = format!("{response:?}").chars().take(40).collect();
    flwr_transport::Status::new(
        flwr_transport::Code::Internal,
        format!("the answer does not fit the call: {answer}"),
    )
}
