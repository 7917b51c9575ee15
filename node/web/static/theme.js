// Before anything is drawn: the colours that this browser is set to use, else those of the system.
const chosenTheme = localStorage.getItem('theme');
if (chosenTheme) document.documentElement.dataset.theme = chosenTheme;
