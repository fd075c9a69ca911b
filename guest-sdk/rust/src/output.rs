//! What an asset makes: a value that it returns, or bytes that it writes as it goes.

use std::cell::RefCell;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::Result;
use crate::host::{self, CALL_BYTES_MAX};

/// What an asset may return: something that knows how to write itself, and as what.
///
/// ```
/// use flowstone_sdk::prelude::*;
/// use flowstone_sdk::OutputStream;
/// use std::io::Write;
///
/// struct Svg(String);
///
/// impl Output for Svg {
///     const MEDIA_TYPE: &'static str = "image/svg+xml";
///
///     fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
///         Ok(stream.write_all(self.0.as_bytes())?)
///     }
/// }
///
/// /// A dot.
/// #[asset]
/// fn dot() -> Result<Svg> {
///     Ok(Svg("<svg xmlns='http://www.w3.org/2000/svg'><circle r='1'/></svg>".into()))
/// }
///
/// # use flowstone_sdk::testing::Job;
/// assert_eq!(Job::new("dot").run().media_type, "image/svg+xml");
/// ```
#[diagnostic::on_unimplemented(
    message = "an asset cannot return `{Self}` as its output",
    note = "wrap it in `Json(..)` or `Csv(..)`, or return `String`, `Vec<u8>`, or `()` after writing to `ctx.output()`"
)]
pub trait Output {
    /// Declared for the asset when its attribute does not say.
    const MEDIA_TYPE: &'static str;

    /// Writes the whole value, after what the asset has written already.
    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()>;
}

impl Output for String {
    const MEDIA_TYPE: &'static str = "text/plain; charset=utf-8";

    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
        Ok(stream.write_all(self.as_bytes())?)
    }
}

impl Output for &str {
    const MEDIA_TYPE: &'static str = String::MEDIA_TYPE;

    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
        Ok(stream.write_all(self.as_bytes())?)
    }
}

impl Output for Vec<u8> {
    const MEDIA_TYPE: &'static str = "application/octet-stream";

    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
        Ok(stream.write_all(&self)?)
    }
}

/// Nothing more than what was written to [`Context::output`](crate::Context::output).
impl Output for () {
    const MEDIA_TYPE: &'static str = "application/octet-stream";

    fn write_to(self, _stream: &mut OutputStream<'_>) -> Result<()> {
        Ok(())
    }
}

/// One JSON value.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// /// The first primes.
/// #[asset]
/// fn primes() -> Result<Json<[u32; 4]>> {
///     Ok(Json([2, 3, 5, 7]))
/// }
///
/// # use flowstone_sdk::testing::Job;
/// let finished = Job::new("primes").run();
/// assert_eq!((finished.text(), &*finished.media_type), ("[2,3,5,7]", "application/json"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> Output for Json<T> {
    const MEDIA_TYPE: &'static str = "application/json";

    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
        Ok(serde_json::to_writer(stream, &self.0)?)
    }
}

/// Rows of CSV, under a line with the names of their fields. Any iterator will do, so that the rows need not all be in
/// memory at once.
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// #[derive(serde::Serialize)]
/// struct Square {
///     side: u32,
///     area: u32,
/// }
///
/// /// Squares.
/// #[asset]
/// fn squares() -> Result<Csv<impl Iterator<Item = Square>>> {
///     Ok(Csv((1..=2).map(|side| Square { side, area: side * side })))
/// }
///
/// # use flowstone_sdk::testing::Job;
/// assert_eq!(Job::new("squares").run().text(), "side,area\n1,1\n2,4\n");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csv<I>(pub I);

impl<I: IntoIterator<Item: Serialize>> Output for Csv<I> {
    const MEDIA_TYPE: &'static str = "text/csv; charset=utf-8";

    fn write_to(self, stream: &mut OutputStream<'_>) -> Result<()> {
        let mut writer = csv::Writer::from_writer(stream);
        for row in self.0 {
            writer.serialize(row)?;
        }
        Ok(writer.flush()?)
    }
}

/// How much is gathered before it is handed to the host: a call costs far less than moving this much.
const PENDING_BYTES_MAX: usize = 64 << 10;

/// The output, as a stream. Small writes are gathered, and what is gathered when the asset returns is written then.
pub struct OutputStream<'context> {
    pub(crate) pending: &'context RefCell<Vec<u8>>,
}

impl Write for OutputStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.borrow().len() + bytes.len() > PENDING_BYTES_MAX {
            self.flush()?;
        }
        if bytes.len() < PENDING_BYTES_MAX {
            self.pending.borrow_mut().extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let amount = bytes.len().min(CALL_BYTES_MAX);
        host::write_output(&bytes[..amount])?;
        Ok(amount)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            host::write_output(&pending)?;
            pending.clear();
        }
        Ok(())
    }
}
