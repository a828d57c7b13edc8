"""Pictures of Label Studio's tasks: fetched from one address, with the token that it wants."""
import base64
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from ..files import ImageError, ImageTooLarge
from ..files.pictures import quoted

STUDIO_TIMEOUT = 20.0  # seconds without a byte from Label Studio
DEADLINE = 60.0  # seconds for a picture as a whole
_REDIRECTS = 3
_ACCESS_SECONDS = 240.0  # an access token is good for five minutes unless it says otherwise


class Fetcher:
    """Fetches pictures of one Label Studio, and nothing from anywhere else.

    Args:
        base: Label Studio's address.
        key: a token of either kind: the legacy one (40 characters) is sent as it is; a personal
            access token (a JWT) is exchanged at ``/api/token/refresh`` for one of a few minutes.
            None: no token is sent.
        max_bytes: of a picture.

    Raises:
        ValueError: ``base`` is no http(s) address, or ``key`` no token or one that has ended.
    """

    def __init__(self, base: str, key: str | None, max_bytes: int) -> None:
        self.base, self.max_bytes = base.strip().rstrip('/'), max_bytes
        if not re.match(r'https?://[^/]', self.base) or _site(self.base) is None:
            raise ValueError(f"Label Studio's address is {base!r:.80}; give one such as "
                             'http://localhost:8080')
        self.key = (key or '').strip() or None
        if self.key and not re.fullmatch(r'[\x21-\x7e]+', self.key):
            raise ValueError('LABEL_STUDIO_API_KEY holds blanks or letters that no token has; '
                             'copy it anew from Label Studio (Account & Settings)')
        ends = _end_of(self.key) if _is_jwt(self.key) else None
        if ends is not None and ends < time.time():
            raise ValueError('the personal access token in LABEL_STUDIO_API_KEY has expired: make '
                             'a new one in Label Studio (Account & Settings)')
        self._access: tuple[str, float] = ('', 0.0)  # token and until when, monotonic
        self._lock = threading.Lock()

    def address(self, place: str) -> str:
        """The address of what a task names, quoted.

        Raises:
            PermissionError: it is not of this Label Studio.
            ImageError: it is no address.
        """
        if re.match(r'[A-Za-z][A-Za-z0-9+.-]*:', place) or place.startswith('//'):
            scheme = self.base.partition('//')[0] if place.startswith('//') else ''
            url = quoted(scheme + place)
        else:  # '#' is part of a name here
            path = urllib.parse.urlsplit(self.base).path
            place = '/' + place.lstrip('/').replace('#', '%23')
            if path and place.startswith(path + '/'):
                place = place[len(path):]
            url = quoted(self.base + place)
        if _site(url) != _site(self.base):
            raise PermissionError(f'pictures are fetched from {self.base} alone; got {url:.100}')
        return url

    def fetch(self, place: str) -> bytes:
        """The bytes of what a task names.

        Raises:
            PermissionError: it is not of this Label Studio.
            ImageError: it is not there, the token is refused, or it is too large.
        """
        url, deadline = self.address(place), time.monotonic() + DEADLINE
        for _ in range(_REDIRECTS):
            try:
                with self._opened(url, deadline) as answer:
                    return _read_answer(answer, self.max_bytes, deadline)
            except urllib.error.HTTPError as error:
                with error:
                    url = self._elsewhere(url, error)
            except ImageError:
                raise
            except Exception as error:  # OSError, and http.client's for answers that are none
                raise ImageError('Label Studio did not give the picture: '
                                 f'{getattr(error, "reason", error)!s:.200}') from None
        raise ImageError(f'Label Studio sends {url:.200} on and on: too many redirects')

    def _opened(self, url: str, deadline: float):
        """An answer of 200. A short-lived token that is refused is renewed once."""
        for fresh in (False, True):
            try:
                return _open(urllib.request.Request(url, headers=self._headers(fresh, deadline)))
            except urllib.error.HTTPError as error:
                if fresh or error.code != 401 or not _is_jwt(self.key):
                    raise

    def _headers(self, fresh: bool, deadline: float) -> dict:
        if self.key is None:
            return {}
        if not _is_jwt(self.key):
            return {'Authorization': f'Token {self.key}'}
        with self._lock:
            if fresh or time.monotonic() >= self._access[1]:
                self._access = self._exchanged(deadline)
            return {'Authorization': f'Bearer {self._access[0]}'}

    def _exchanged(self, deadline: float) -> tuple[str, float]:
        """A short-lived token for the personal one, and until when it is used."""
        body = json.dumps(dict(refresh=self.key)).encode()
        for path in ('/api/token/refresh/', '/api/token/refresh'):
            request = urllib.request.Request(self.base + path, body,
                                             {'Content-Type': 'application/json'})
            try:
                with _open(request) as answer:
                    access = json.loads(_read_answer(answer, 100_000, deadline))['access']
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (301, 302, 307, 308, 404, 405) and path.endswith('/'):
                    continue
                raise ImageError(f'Label Studio does not take the personal access token ('
                                 f'{error.code}): make a new one under Account & Settings and '
                                 'put it into LABEL_STUDIO_API_KEY') from None
            except (ValueError, KeyError, TypeError):
                raise ImageError('Label Studio answered the personal access token with no access '
                                 'token; is --label-studio-url its address?') from None
            if not isinstance(access, str) or not re.fullmatch(r'[\x21-\x7e]+', access):
                raise ImageError('Label Studio gave an access token that is none')
            return access, time.monotonic() + _seconds_left(access)
        raise AssertionError

    def _elsewhere(self, url: str, error: urllib.error.HTTPError) -> str:
        """Where a redirect leads, on the same site. Raises ImageError for all other errors."""
        what = f'Label Studio answers {error.code} {error.reason!s:.60} for {url:.200}'
        if error.code in (401, 403):
            raise ImageError(f'{what}: ' + (
                'the token is not (any more) good for it; put that of a member of the project '
                'into LABEL_STUDIO_API_KEY' if self.key else
                'it wants a token; start the server with LABEL_STUDIO_API_KEY=TOKEN')) from None
        place = error.headers.get('Location')
        if error.code not in (301, 302, 303, 307, 308) or not place:
            raise ImageError(what) from None
        try:
            target = quoted(urllib.parse.urljoin(url, place.encode('latin-1').decode(
                'utf-8', 'replace')))
        except ValueError:
            target = ''
        if _site(target) != _site(self.base):
            raise ImageError(
                f'{what}: it sends on to another place, where this server does not go. Let Label '
                "Studio give the picture itself (storage: 'Use pre-signed URLs' off), or give "
                'the address that it moved to') from None
        return target


def _is_jwt(key: str | None) -> bool:
    return bool(key) and key.startswith('ey') and key.count('.') == 2


def _seconds_left(access: str) -> float:
    """How long to use a token: to half a minute before it ends."""
    ends = _end_of(access)
    return _ACCESS_SECONDS if ends is None else max(0.0, min(ends - time.time() - 30, 3600.0))


def _end_of(token: str) -> float | None:
    """When a JWT ends, seconds since 1970; None where it does not say."""
    try:
        part = token.split('.')[1]
        return float(json.loads(base64.urlsafe_b64decode(part + '=' * (-len(part) % 4)))['exp'])
    except (IndexError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _site(url: str) -> tuple[str, str, int] | None:
    """Scheme, host (with a user's name, if any) and port; None: no http(s) address."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or dict(http=80, https=443)[parts.scheme]
    except (ValueError, KeyError):
        return None
    user, at, _ = parts.netloc.rpartition('@')
    return parts.scheme, user + at + (parts.hostname or ''), port


def _read_answer(answer, limit: int, deadline: float) -> bytes:
    parts, size = [], 0
    while part := answer.read1(1 << 20):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise ImageTooLarge(f'the picture has more than {limit / 1e6:g} MB; start the server '
                                'with a larger --max-mb')
        if time.monotonic() > deadline:
            raise ImageError(f'Label Studio took more than {DEADLINE:g} s for the picture')
    length = answer.headers.get('Content-Length', '')
    if length.isdecimal() and size < int(length):
        raise ImageError(f'Label Studio sent {size:,} of {length} bytes of the picture')
    return b''.join(parts)


def _open(request: urllib.request.Request):
    return _OPENER.open(request, timeout=STUDIO_TIMEOUT)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs):
        return None  # a token must not follow to another place


_OPENER = urllib.request.build_opener(_NoRedirects)
