//! Every limit of the gateway in one place, with its unit and its default. Past a limit there is a clear error, and nothing
//! that was acknowledged is lost.

/// Bytes of memory that the process may take with the limits below.
pub const PROCESS_BYTES_MAX: u64 = 1 << 30;

/// Limits of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressLimits {
    /// Bytes of a request body; more is answered 413.
    pub body_bytes_max: u64,
    /// Bytes of a request head; more is answered 431.
    pub header_bytes_max: usize,
    /// Header fields of a request; more is answered 431.
    pub headers_max: usize,
    /// Milliseconds for a request head to arrive.
    pub header_timeout_ms: u64,
    /// Milliseconds for a request body to arrive; later is answered 408.
    pub body_timeout_ms: u64,
    /// Bytes per second below which a body is too slow, judged once a second has passed.
    pub body_rate_min_bytes_s: u64,
    /// Milliseconds after which an idle connection is closed.
    pub idle_timeout_ms: u64,
    /// Open connections; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Body bytes held in memory over all requests; past it requests are answered 503.
    pub memory_bytes_max: usize,
    /// Milliseconds to wait for the store; then 503. The event may still be stored; its dedup key covers the retry.
    pub accept_timeout_ms: u64,
}

impl Default for IngressLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            header_bytes_max: 16 << 10,
            headers_max: 100,
            header_timeout_ms: 5_000,
            body_timeout_ms: 10_000,
            body_rate_min_bytes_s: 1 << 10,
            idle_timeout_ms: 75_000,
            connections_max: 4_096,
            memory_bytes_max: 64 << 20,
            accept_timeout_ms: 2_000,
        }
    }
}

/// Limits of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of one journal segment.
    pub segment_bytes: u64,
    /// Items that wait for the writer.
    pub queue_items_max: usize,
    /// Bytes that wait for the writer.
    pub queue_bytes_max: usize,
    /// Records of one batch.
    pub batch_records_max: usize,
    /// Bytes of one batch.
    pub batch_bytes_max: usize,
    /// Journal bytes that the key space may lag behind.
    pub lag_bytes_max: u64,
    /// Milliseconds that the key space may lag behind.
    pub lag_ms_max: u64,
    /// Bytes of recently accepted events kept in memory for their first attempt.
    pub recent_bytes_max: usize,
    /// Bytes of sled's cache.
    pub cache_bytes: u64,
    /// Milliseconds that events are kept.
    pub retention_ms: u64,
    /// Bytes that the journal may take.
    pub retention_bytes: u64,
    /// Milliseconds that a dedup key holds.
    pub dedup_ms: u64,
    /// Free bytes on the file system below which intake stops.
    pub free_bytes_min: u64,
    /// Deliveries that may be pending; past it intake stops.
    pub pending_max: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_items_max: 8_192,
            queue_bytes_max: 32 << 20,
            batch_records_max: 4_096,
            batch_bytes_max: 8 << 20,
            lag_bytes_max: 64 << 20,
            lag_ms_max: 2_000,
            recent_bytes_max: 64 << 20,
            cache_bytes: 64 << 20,
            retention_ms: 30 * 86_400_000,
            retention_bytes: 10 << 30,
            dedup_ms: 7 * 86_400_000,
            free_bytes_min: 512 << 20,
            pending_max: 2_500_000,
        }
    }
}

/// Limits of the engine and of each attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Attempts in flight over all endpoints.
    pub in_flight_max: usize,
    /// Attempts in flight per endpoint, unless the endpoint says otherwise.
    pub endpoint_in_flight_max: usize,
    /// Deliveries held in memory over all endpoints; the rest stays in the key space.
    pub window_max: usize,
    /// Milliseconds that an attempt may take in all, unless the endpoint says otherwise.
    pub attempt_timeout_ms: u64,
    /// Bytes of a response body that are kept.
    pub response_bytes_kept: usize,
    /// Bytes of a response body that are read before the connection is given up.
    pub response_bytes_read: usize,
    /// Bytes of a response head.
    pub response_header_bytes_max: usize,
    /// Milliseconds that attempts in flight get to finish when the gateway stops.
    pub drain_ms: u64,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            in_flight_max: 1_024,
            endpoint_in_flight_max: 64,
            window_max: 10_000,
            attempt_timeout_ms: 30_000,
            response_bytes_kept: 16 << 10,
            response_bytes_read: 64 << 10,
            response_header_bytes_max: 16 << 10,
            drain_ms: 30_000,
        }
    }
}

/// Limits of the management listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiLimits {
    /// Bytes of a request body; more is answered 413.
    pub body_bytes_max: u64,
    /// Entries of one page of a list.
    pub page_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Milliseconds for a request to be answered.
    pub request_timeout_ms: u64,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self { body_bytes_max: 1 << 20, page_max: 250, connections_max: 1_024, request_timeout_ms: 30_000 }
    }
}
