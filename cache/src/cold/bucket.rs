//! A bucket of an S3-compatible store: a thin layer over `object_store`, with limits on objects and times. Pages
//! of listings and what a server says of its errors are read whole, as the library does it: a server that has
//! the farm's cold tier is trusted with its memory.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use metrics::counter;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey::Client, S3ConditionalPut},
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use protocol::time::WallTime;

use super::{
    ColdOptions, OpenColdError,
    error::{ColdError, bucket_error},
    names::NAME_BYTES_MAX,
};

/// How long one try at a request may take, and the greeting of a server: 2 MiB at 70 kB/s.
const TRY_TIME_MAX: &str = "30 seconds";
const CONNECT_TIME_MAX: &str = "5 seconds";
/// How often a request is tried again, and until when: builds wait for what is read.
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
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&options.bucket)
            .with_config(Client(ClientConfigKey::Timeout), TRY_TIME_MAX)
            .with_config(Client(ClientConfigKey::ConnectTimeout), CONNECT_TIME_MAX)
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
        let got = self.store.get(&self.path(name)?).await;
        let Some(got) = found(counted("get", got)).map_err(bucket_error("read", name))? else {
            return Ok(None);
        };
        let too_large = |found| ColdError::TooLarge {
            name: name.to_owned(),
            found,
            limit,
        };
        if limit < got.meta.size {
            return Err(too_large(got.meta.size));
        }
        let mut bytes = BytesMut::new();
        let mut pieces = got.into_stream();
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(bucket_error("read", name))?);
            // Whatever the server said before.
            if limit < bytes.len() as u64 {
                return Err(too_large(bytes.len() as u64));
            }
        }
        counter!("grange_cache_cold_bytes_read_total").increment(bytes.len() as u64);
        Ok(Some(bytes.freeze()))
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
        let head = self.store.head(&self.path(name)?).await;
        let head = found(counted("head", head)).map_err(bucket_error("look for", name))?;
        Ok(head.map(|head| wall(head.last_modified.timestamp_millis())))
    }

    /// Deletes an object; that there is none is as good.
    pub(super) async fn delete(&self, name: &str) -> Result<(), ColdError> {
        let deleted = self.store.delete(&self.path(name)?).await;
        let deleted = found(counted("delete", deleted)).map_err(bucket_error("delete", name));
        deleted.map(|_there_was_one_or_not| ())
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

    /// Whether an object can be called so.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.path(name).is_ok()
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

/// That there is no such object is an answer.
fn found<T>(done: Result<T, Error>) -> Result<Option<T>, Error> {
    match done {
        Err(Error::NotFound { .. }) => Ok(None),
        done => done.map(Some),
    }
}

fn counted<T>(what: &'static str, done: Result<T, Error>) -> Result<T, Error> {
    let outcome = match &done {
        Ok(_) => "done",
        Err(Error::NotFound { .. }) => "not there",
        Err(_) => "failed",
    };
    counter!("grange_cache_cold_requests_total", "what" => what, "outcome" => outcome).increment(1);
    done
}
