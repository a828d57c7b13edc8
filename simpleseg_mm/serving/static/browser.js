// Written for old browsers: says what the page needs, where a browser lacks it.
(function () {
  var has = 'noModule' in document.createElement('script') && Array.prototype.at &&
      window.BroadcastChannel && window.indexedDB && window.createImageBitmap;
  if (has) return;
  document.addEventListener('DOMContentLoaded', function () {
    var said = document.createElement('p');
    said.setAttribute('role', 'alert');
    said.textContent = 'This browser is too old for this page. Please use Chrome or Edge 92, ' +
        'Firefox 90, Safari 15.4, or a newer one.';
    document.body.insertBefore(said, document.body.firstChild);
  });
})();
