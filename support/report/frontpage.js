(function () {
  const front = document.getElementById("front");
  const again = document.getElementById("front-again");
  function show(on) {
    front.hidden = !on;
    again.hidden = on;
  }
  // Allure's pages all have a hash; an address without one is the summary, and one of a record leads to it there.
  function route() {
    const place = location.hash && document.getElementById(location.hash.slice(1));
    const record = place && front.contains(place) && place.querySelector("details");
    show(location.hash === "" || Boolean(record));
    if (record) {
      record.open = true;
      place.scrollIntoView();
    }
  }
  // Links on Allure's pages that lead here.
  new MutationObserver(function () {
    for (const link of document.querySelectorAll('a[href^="HERE"]')) {
      link.setAttribute("href", link.hash);
      link.removeAttribute("target");
    }
  }).observe(document.body, {childList: true, subtree: true});
  again.addEventListener("click", function () {
    location.hash = "";
    show(true);
  });
  window.addEventListener("hashchange", route);
  route();
})();
