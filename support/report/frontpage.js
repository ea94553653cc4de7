(function () {
  const front = document.getElementById("front");
  const again = document.getElementById("front-again");
  function show(on) {
    front.hidden = !on;
    again.hidden = on;
  }
  // Allure's pages all have a hash; an address without one is the summary.
  function route() {
    show(location.hash === "");
  }
  again.addEventListener("click", function () {
    location.hash = "";
    show(true);
  });
  window.addEventListener("hashchange", route);
  route();
})();
