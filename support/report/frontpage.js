(function () {
  const front = document.getElementById("front");
  const again = document.getElementById("front-again");
  function show(on) {
    front.hidden = !on;
    again.hidden = on;
  }
  // Allure's pages all have a hash; an address without one is the summary. A record is a state of the same address, for
  // Allure takes each hash for a page of its own and says that this one cannot be found.
  function route() {
    const record = history.state && history.state.record && document.getElementById(history.state.record);
    show(location.hash === "" || Boolean(record));
    if (record) {
      record.querySelector("details").open = true;
      record.scrollIntoView();
    }
  }
  // Links on Allure's pages that lead here.
  document.addEventListener("click", function (event) {
    const link = event.target.closest('a[href^="HERE"]');
    if (link) {
      event.preventDefault();
      event.stopPropagation();
      history.pushState({record: link.hash.slice(1)}, "");
      route();
    }
  }, true);
  again.addEventListener("click", function () {
    location.hash = "";
    show(true);
  });
  window.addEventListener("hashchange", route);
  window.addEventListener("popstate", route);
  route();
})();
