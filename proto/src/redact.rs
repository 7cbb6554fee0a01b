//! `Debug` for messages that carry secrets or contents.
//!
//! Every message named in `build.rs` as redacted has its line here; one without
//! the other does not compile.

use std::fmt;

use bytes::Bytes;

use crate::{launcher, v1_22};

/// Something of which only the length is shown.
trait Hidden {
    /// Length in bytes; `None` if the field is absent.
    fn len(&self) -> Option<usize>;
}

impl Hidden for Bytes {
    fn len(&self) -> Option<usize> {
        Some(Self::len(self))
    }
}

impl Hidden for Option<Bytes> {
    fn len(&self) -> Option<usize> {
        self.as_ref().map(Bytes::len)
    }
}

impl Hidden for String {
    fn len(&self) -> Option<usize> {
        Some(Self::len(self))
    }
}

/// Formats a hidden field as `<n bytes>`, or `None` if absent.
struct Veil<'a, T>(&'a T);

impl<T: Hidden> fmt::Debug for Veil<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            Some(len) => write!(f, "<{len} bytes>"),
            None => f.write_str("None"),
        }
    }
}

/// Implements `Debug` with the fields after `show` as they are and those after
/// `hide` by length. Takes the message apart, so a forgotten field is an error.
macro_rules! redact {
    ($module:ident: $($name:ident { show: [$($shown:ident),*], hide: [$($hidden:ident),*] })*) => {$(
        impl fmt::Debug for $module::$name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($shown,)* $($hidden,)* } = self;
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($hidden), &Veil($hidden)))*
                    .finish()
            }
        }
    )*};
}

redact! {
    v1_22:
    Array { show: [dtype, shape, stype], hide: [data] }
    Fab { show: [hash_str], hide: [content] }
    GetAuthTokensRequest { show: [], hide: [device_code] }
    GetAuthTokensResponse { show: [], hide: [access_token, refresh_token] }
    GetFederationOptionsResponse { show: [], hide: [federation_options] }
    GetLoginDetailsResponse {
        show: [auth_type, expires_in, interval],
        hide: [device_code, verification_uri_complete]
    }
    Message { show: [metadata, error], hide: [content] }
    MessageContainer { show: [metadata, grpc_message_name], hide: [grpc_message_content] }
    PullAppInputsRequest { show: [], hide: [token] }
    PullAppInputsResponse { show: [run, fab], hide: [context] }
    PullAppMessagesRequest { show: [message_ids, run_id], hide: [token] }
    PullObjectResponse { show: [object_found, object_available], hide: [object_content] }
    PushAppMessagesRequest {
        show: [messages_list, run_id, message_object_trees],
        hide: [token]
    }
    PushAppOutputsRequest { show: [run_id], hide: [token, context] }
    PushObjectRequest { show: [node, run_id, object_id], hide: [object_content] }
    RequestTokenResponse { show: [], hide: [token] }
    StartRunRequest { show: [fab, override_config], hide: [federation_options] }
}

redact! {
    launcher:
    ReportAppExitRequest { show: [how], hide: [token] }
    WatchAppRequest { show: [], hide: [token] }
}
