//! A backup of the store, as a stream.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::problem::Answer;
use super::{Api, Call};
use crate::http::Content;
use crate::store::Store;

/// Bytes that the backup will have, as far as can be said: its length is known only at its end.
pub const BACKUP_BYTES: HeaderName = HeaderName::from_static("postrider-backup-bytes");

impl<S: Store> Api<S> {
    pub(super) async fn backup(&self, call: Call<'_>) -> Answer {
        call.query.finish()?;
        let backup = self.store.backup().await?;
        let mut reply = Response::new(Content::stream(backup.chunks));
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(BACKUP_BYTES, HeaderValue::from(backup.bytes));
        Ok(reply)
    }
}
