//! A socket that the event loop can be made to forget for a while.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Whether the event loop is to be told of what comes on a [`Socket`]: shared with whoever reads from it.
///
/// While a socket is registered with the event loop, each message that the other side sends costs that side a call into it,
/// awaited or not. Who knows that more is on its way, and looks at the socket by itself, spares it that.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    is_suspended: Arc<AtomicBool>,
}

impl Registration {
    /// From the next read on the socket is not registered, as long as each read finds something; one that does not registers
    /// it again and waits.
    pub fn suspend(&self) {
        self.is_suspended.store(true, Ordering::Relaxed);
    }

    /// From the next read on it is registered again.
    pub fn resume(&self) {
        self.is_suspended.store(false, Ordering::Relaxed);
    }

    fn is_suspended(&self) -> bool {
        self.is_suspended.load(Ordering::Relaxed)
    }
}

/// A connected socket, registered with the event loop unless its [`Registration`] is suspended.
#[derive(Debug)]
pub struct Socket<S: Registered> {
    state: State<S>,
    registration: Registration,
    /// A writer waits at the event loop, which would be forgotten with the registration.
    has_waiting_writer: bool,
}

#[derive(Debug)]
enum State<S: Registered> {
    Registered(S),
    Unregistered(S::Plain),
    /// Registering failed.
    Broken,
}

/// A socket of the event loop, and what it is without it.
pub trait Registered: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same without an event loop. Non-blocking.
    type Plain: Read + Write + std::fmt::Debug + Unpin;

    /// # Errors
    /// What the operating system says; the socket is closed then.
    fn unregister(self) -> io::Result<Self::Plain>;

    /// # Errors
    /// As [`Registered::unregister`].
    fn register(plain: Self::Plain) -> io::Result<Self>;
}

impl Registered for TcpStream {
    type Plain = std::net::TcpStream;

    fn unregister(self) -> io::Result<Self::Plain> {
        self.into_std()
    }

    fn register(plain: Self::Plain) -> io::Result<Self> {
        Self::from_std(plain)
    }
}

impl Registered for UnixStream {
    type Plain = std::os::unix::net::UnixStream;

    fn unregister(self) -> io::Result<Self::Plain> {
        self.into_std()
    }

    fn register(plain: Self::Plain) -> io::Result<Self> {
        Self::from_std(plain)
    }
}

impl<S: Registered> Socket<S> {
    pub(crate) fn new(socket: S) -> Self {
        let state = State::Registered(socket);
        Self { state, registration: Registration::default(), has_waiting_writer: false }
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    fn registered(&mut self) -> io::Result<Pin<&mut S>> {
        if let State::Unregistered(_) = self.state
            && let State::Unregistered(plain) = std::mem::replace(&mut self.state, State::Broken)
        {
            self.state = State::Registered(S::register(plain)?);
        }
        match &mut self.state {
            State::Registered(socket) => Ok(Pin::new(socket)),
            State::Unregistered(_) | State::Broken => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn unregister(&mut self) -> io::Result<()> {
        if let State::Registered(_) = self.state
            && let State::Registered(socket) = std::mem::replace(&mut self.state, State::Broken)
        {
            self.state = State::Unregistered(socket.unregister()?);
        }
        Ok(())
    }

    /// What the socket does at once without the event loop; `None` when it is registered or would block.
    fn attempt<T>(&mut self, mut act: impl FnMut(&mut S::Plain) -> io::Result<T>) -> Option<io::Result<T>> {
        let State::Unregistered(plain) = &mut self.state else { return None };
        loop {
            match act(plain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Some(done),
            }
        }
    }

    fn write(
        &mut self,
        plain: impl FnMut(&mut S::Plain) -> io::Result<usize>,
        registered: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(written) = self.attempt(plain) {
            return Poll::Ready(written);
        }
        let written = registered(self.registered()?);
        self.has_waiting_writer = written.is_pending();
        written
    }
}

impl<S: Registered> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.registration.is_suspended() && !this.has_waiting_writer {
            this.unregister()?;
            if let Some(read) = this.attempt(|plain| plain.read(buf.initialize_unfilled())) {
                return Poll::Ready(read.map(|read| buf.advance(read)));
            }
        }
        this.registered()?.poll_read(cx, buf)
    }
}

impl<S: Registered> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(|plain| plain.write(buf), |socket| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let vectored = |plain: &mut S::Plain| plain.write_vectored(bufs);
        self.get_mut().write(vectored, |socket| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel's buffer is all there is.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().registered()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    use super::{Socket, State};

    fn pair() -> (Socket<UnixStream>, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        (Socket::new(here), there)
    }

    #[tokio::test]
    async fn bytes_come_whole_while_the_registration_is_suspended_and_resumed() {
        let (mut here, mut there) = pair();
        let registration = here.registration().clone();
        let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
        let all = sent.clone();
        let writer = tokio::spawn(async move {
            for piece in all.chunks(1000) {
                there.write_all(piece).await.expect("the reader reads");
                tokio::task::yield_now().await;
            }
        });
        let (mut received, mut count) = (Vec::new(), 0);
        while here.read_buf(&mut received).await.expect("the writer writes") > 0 {
            count += 1;
            // Some of the reads find nothing and wait.
            if count % 3 == 0 { registration.resume() } else { registration.suspend() }
        }
        writer.await.expect("it ends");
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_read_that_finds_nothing_registers_again_and_is_woken() {
        let (mut here, mut there) = pair();
        here.registration().suspend();
        let mut byte = [0];
        there.write_all(b"a").await.expect("room");
        here.read_exact(&mut byte).await.expect("a byte");
        assert!(matches!(here.state, State::Unregistered(_)));
        let reading = tokio::spawn(async move {
            here.read_exact(&mut byte).await.expect("a byte");
            byte
        });
        tokio::task::yield_now().await;
        there.write_all(b"b").await.expect("room");
        let byte = timeout(Duration::from_secs(60), reading).await.expect("the reader is woken");
        assert_eq!(byte.expect("it ends"), *b"b");
    }

    #[tokio::test]
    async fn who_waits_to_write_is_woken_also_when_the_reader_suspends_the_registration() {
        let (here, mut there) = pair();
        let registration = here.registration().clone();
        let (mut reader, mut writer) = split(here);
        let writing = tokio::spawn(async move { writer.write_all(&vec![1; 4 << 20]).await });
        // It fills the socket and waits.
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        registration.suspend();
        there.write_all(b"c").await.expect("room");
        assert_eq!(reader.read_u8().await.expect("a byte"), b'c');
        let mut taken = vec![0; 4 << 20];
        let taken = timeout(Duration::from_secs(60), there.read_exact(&mut taken)).await;
        taken.expect("the writer is woken").expect("what is written");
        writing.await.expect("it ends").expect("it is written");
    }
}
