//! A bucket of an S3-compatible store: a thin layer over `object_store`, with a limit on every answer.

use std::{fmt, time::Duration};

use bytes::Bytes;
use metrics::counter;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use protocol::time::WallTime;

use super::{
    ColdOptions, OpenColdError,
    error::{ColdError, bucket_error},
    names::NAME_BYTES_MAX,
};

/// How long one request may take, tries included, and the greeting of a server.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a request is tried again, and for how long. Builds wait for what is read.
const RETRIES_MAX: usize = 3;
const RETRY_TIME_MAX: Duration = Duration::from_secs(10);
/// How many names a page of a listing has: S3's own limit.
const PAGE: usize = 1000;

/// An object, as a listing says it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) modified: WallTime,
}

/// Where the next page of a listing begins.
#[derive(Debug)]
pub(super) struct NextPage(String);

/// The part of a bucket whose names begin with a prefix, which stands in no name outside this module.
pub(super) struct Bucket {
    store: AmazonS3,
    /// Empty, or ends with a slash.
    prefix: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store shows its credentials.
        formatter
            .debug_struct("Bucket")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Sees whether the settings make sense; says nothing to the server. Credentials, and what the options
    /// leave open, are in the variables that AWS's own tools read.
    pub(super) fn open(options: &ColdOptions) -> Result<Self, OpenColdError> {
        let client = ClientOptions::new()
            .with_timeout(REQUEST_TIME_MAX)
            .with_connect_timeout(CONNECT_TIME_MAX);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&options.bucket)
            .with_client_options(client)
            .with_conditional_put(S3ConditionalPut::Disabled)
            .with_retry(retry);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &options.endpoint {
            // Who writes `http` into the settings means it.
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        let store = builder.build().map_err(|source| OpenColdError::Settings {
            bucket: options.bucket.clone(),
            source: Box::new(source),
        })?;
        let prefix = options.prefix.trim_matches('/');
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Path::parse(&prefix).map_err(|source| OpenColdError::Prefix {
            prefix: options.prefix.clone(),
            source: Box::new(source),
        })?;
        Ok(Self { store, prefix })
    }

    /// The object; `None`: there is none.
    ///
    /// # Errors
    ///
    /// If it has more than `limit` bytes, or cannot be read.
    pub(super) async fn get(&self, name: &str, limit: u64) -> Result<Option<Bytes>, ColdError> {
        const WHAT: &str = "read";
        let got = match self.store.get(&self.path(name)?).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            got => counted("get", got).map_err(bucket_error(WHAT, name))?,
        };
        if limit < got.meta.size {
            return Err(ColdError::TooLarge {
                name: name.to_owned(),
                found: got.meta.size,
                limit,
            });
        }
        let bytes = got.bytes().await.map_err(bucket_error(WHAT, name))?;
        counter!("grange_cache_cold_bytes_read_total").increment(bytes.len() as u64);
        Ok(Some(bytes))
    }

    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ColdError> {
        let length = bytes.len() as u64;
        let payload = PutPayload::from_bytes(bytes);
        let put = self.store.put(&self.path(name)?, payload).await;
        counted("put", put).map_err(bucket_error("write", name))?;
        counter!("grange_cache_cold_bytes_written_total").increment(length);
        Ok(())
    }

    /// When the object was written; `None`: there is none.
    pub(super) async fn modified(&self, name: &str) -> Result<Option<WallTime>, ColdError> {
        match self.store.head(&self.path(name)?).await {
            Err(Error::NotFound { .. }) => Ok(None),
            head => {
                let head = counted("head", head).map_err(bucket_error("look for", name))?;
                Ok(Some(wall(head.last_modified.timestamp_millis())))
            }
        }
    }

    /// Deletes an object; that there is none is as good.
    pub(super) async fn delete(&self, name: &str) -> Result<(), ColdError> {
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            deleted => counted("delete", deleted).map_err(bucket_error("delete", name)),
        }
    }

    /// A page of the objects whose names start with `start`, in no order, and where the next begins; `None`:
    /// there is none.
    pub(super) async fn list(
        &self,
        start: &str,
        from: Option<NextPage>,
    ) -> Result<(Vec<Listed>, Option<NextPage>), ColdError> {
        let options = PaginatedListOptions {
            max_keys: Some(PAGE),
            page_token: from.map(|NextPage(token)| token),
            ..PaginatedListOptions::default()
        };
        let start = format!("{}{start}", self.prefix);
        let page = self.store.list_paginated(Some(&start), options).await;
        let page = counted("list", page).map_err(bucket_error("list", &start))?;
        let objects = page.result.objects.into_iter().filter_map(|object| {
            let name = object.location.as_ref().strip_prefix(&self.prefix)?;
            Some(Listed {
                name: name.to_owned(),
                modified: wall(object.last_modified.timestamp_millis()),
            })
        });
        Ok((objects.collect(), page.page_token.map(NextPage)))
    }

    fn path(&self, name: &str) -> Result<Path, ColdError> {
        let whole = format!("{}{name}", self.prefix);
        let error = |source| ColdError::Name {
            name: whole.clone(),
            source,
        };
        if NAME_BYTES_MAX < whole.len() {
            return Err(error(None));
        }
        Path::parse(&whole).map_err(|source| error(Some(Box::new(source))))
    }
}

fn wall(millis: i64) -> WallTime {
    WallTime(u64::try_from(millis).unwrap_or(0))
}

fn counted<T>(what: &'static str, done: Result<T, Error>) -> Result<T, Error> {
    let outcome = if done.is_ok() { "done" } else { "failed" };
    counter!("grange_cache_cold_requests_total", "what" => what, "outcome" => outcome).increment(1);
    done
}
